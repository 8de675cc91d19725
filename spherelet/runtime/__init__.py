"""Containers by conmon and an OCI runtime: spec, namespaces, mounts, cgroups, processes."""
