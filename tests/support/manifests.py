"""Builders of the objects that end-to-end tests apply."""

from typing import Any

BUSYBOX = "busybox"
Object = dict[str, Any]


def container(name: str = "c", *command: str, **fields: Any) -> Object:
    """A busybox container that runs ``command``, by default one that ends at once when told to."""
    words = list(command) or ["sh", "-c", "trap 'exit 0' TERM; sleep 1d & wait"]
    return {"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": words, **fields}


def shell(script: str, name: str = "c", **fields: Any) -> Object:
    """A container that runs a shell script."""
    return container(name, "sh", "-c", script, **fields)


def pod(name: str, *containers: Object, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A pod that stops within a second."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers) or [container()], **spec},
    }


def deployment(name: str, *containers: Object, replicas: int = 1, **spec: Any) -> Object:
    """A deployment whose pods are labelled ``app=<name>``."""
    template = pod(name, *containers)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
            **spec,
        },
    }


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Object:
    """An Opaque Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def service(name: str, app: str, port: int, target: int, **spec: Any) -> Object:
    """A ClusterIP Service before the pods labelled ``app=<app>``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"port": port, "targetPort": target}], **spec},
    }
