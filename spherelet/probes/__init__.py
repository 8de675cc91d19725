"""Startup, liveness and readiness probes of running containers."""
