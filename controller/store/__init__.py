"""etcd and the in-memory watch cache: the only code that talks to etcd."""
