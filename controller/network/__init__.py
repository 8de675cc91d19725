"""Network intent to per-scope desired state, its publication, and realization."""
