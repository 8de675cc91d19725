"""Container images without a registry: OCI archives built from Debian packages, and loaded onto the hosts."""
