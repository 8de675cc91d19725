"""What a pod gets mounted or put into its environment, and where it comes from."""
