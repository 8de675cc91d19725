"""What at least two processes share: wire contracts and plumbing. No decisions live here."""
