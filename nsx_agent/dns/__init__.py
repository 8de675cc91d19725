"""Service discovery: programs the host's unbound."""
