"""The control plane: a Kubernetes-compatible API on etcd, scheduler, reconcilers, network planner."""
