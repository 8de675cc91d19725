"""HTTP: parse, authenticate, authorise, admit, store, encode."""
