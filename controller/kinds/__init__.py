"""One descriptor per kind: schema, defaults, validation, strategy, columns. Pure."""
