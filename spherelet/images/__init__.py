"""Images by containerd: pull, look up, and the layer directories that root file systems are made of."""
