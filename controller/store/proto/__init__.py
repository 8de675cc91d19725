"""etcd message types, generated from etcd.proto."""
