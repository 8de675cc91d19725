"""The host agent: runs pods with conmon and an OCI runtime, reports their state."""
