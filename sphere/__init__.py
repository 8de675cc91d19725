"""The `sphere` command line and the one-machine cluster."""
