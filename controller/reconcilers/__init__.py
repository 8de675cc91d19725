"""What to do about objects: one file per kind, each a pure plan."""
