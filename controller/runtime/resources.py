"""Names of the resources that controllers work with, in one place. Pure."""

from typing import Final

from controller.kinds.kind import Object, ResourceKey

PERSISTENT_VOLUME_CLAIMS: Final = ResourceKey("", "persistentvolumeclaims")
PERSISTENT_VOLUMES: Final = ResourceKey("", "persistentvolumes")
STORAGE_CLASSES: Final = ResourceKey("storage.k8s.io", "storageclasses")
CONFIG_MAPS: Final = ResourceKey("", "configmaps")
ENDPOINTS: Final = ResourceKey("", "endpoints")
EVENTS: Final = ResourceKey("", "events")
NAMESPACES: Final = ResourceKey("", "namespaces")
NODES: Final = ResourceKey("", "nodes")
PODS: Final = ResourceKey("", "pods")
RESOURCE_QUOTAS: Final = ResourceKey("", "resourcequotas")
REPLICATION_CONTROLLERS: Final = ResourceKey("", "replicationcontrollers")
SERVICES: Final = ResourceKey("", "services")
SERVICE_ACCOUNTS: Final = ResourceKey("", "serviceaccounts")
DEPLOYMENTS: Final = ResourceKey("apps", "deployments")
REPLICA_SETS: Final = ResourceKey("apps", "replicasets")
DAEMON_SETS: Final = ResourceKey("apps", "daemonsets")
STATEFUL_SETS: Final = ResourceKey("apps", "statefulsets")
CONTROLLER_REVISIONS: Final = ResourceKey("apps", "controllerrevisions")
JOBS: Final = ResourceKey("batch", "jobs")
POD_DISRUPTION_BUDGETS: Final = ResourceKey("policy", "poddisruptionbudgets")
CRON_JOBS: Final = ResourceKey("batch", "cronjobs")
LEASES: Final = ResourceKey("coordination.k8s.io", "leases")
ENDPOINT_SLICES: Final = ResourceKey("discovery.k8s.io", "endpointslices")
SEGMENTS: Final = ResourceKey("network.sphere.io", "segments")
ADDRESS_BLOCKS: Final = ResourceKey("network.sphere.io", "addressblocks")
PORTS: Final = ResourceKey("network.sphere.io", "ports")

PLAIN_SELECTORS: Final = frozenset((SERVICES, REPLICATION_CONTROLLERS))
"""Resources whose ``spec.selector`` is a map of labels, from before there were label selectors."""

NETWORK_API: Final = "network.sphere.io/v1"


def key_of(obj: Object) -> str:
    """``namespace/name`` of an object, the key that reconcilers work by. Cluster-scoped: ``/name``."""
    meta = obj["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def split(key: str) -> tuple[str, str]:
    """Inverse of ``key_of``."""
    namespace, _, name = key.partition("/")
    return namespace, name
