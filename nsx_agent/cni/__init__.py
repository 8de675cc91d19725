"""Pod wiring on request: the node-local socket server and the standard CNI executable."""
