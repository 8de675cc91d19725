"""spherelet's HTTPS server: logs, exec, attach, port-forward, stats and metrics of this host's pods."""
