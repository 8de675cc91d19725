"""Makes a machine able to run the project. Standard library only."""
