"""Which ConfigMaps and Secrets a pod needs. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]


class Ref(NamedTuple):
    """One referenced object; ``plural`` is ``configmaps`` or ``secrets``."""

    plural: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Collection path of the API."""
        return f"/api/v1/namespaces/{self.namespace}/{self.plural}"

    def __str__(self) -> str:
        return f"{self.plural}/{self.namespace}/{self.name}"


def of_pod(pod: Object) -> frozenset[Ref]:
    """Objects that volumes or environment of ``pod`` use."""
    return frozenset((*_volume_refs(pod), *_environment_refs(pod)))


def _volume_refs(pod: Object) -> Iterator[Ref]:
    namespace = pod["metadata"].get("namespace", "default")
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if "configMap" in source:
                yield Ref("configmaps", namespace, str(source["configMap"].get("name", "")))
            if "secret" in source:
                named = source["secret"]
                yield Ref("secrets", namespace, str(named.get("secretName") or named.get("name") or ""))


def _environment_refs(pod: Object) -> Iterator[Ref]:
    namespace = pod["metadata"].get("namespace", "default")
    keys = ("initContainers", "containers", "ephemeralContainers")
    for container in (each for key in keys for each in pod["spec"].get(key) or ()):
        for each in container.get("envFrom") or ():
            yield from _named(each, "configMapRef", "secretRef", namespace)
        for each in container.get("env") or ():
            yield from _named(each.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef", namespace)


def _named(source: Mapping[str, Any], config_map: str, secret: str, namespace: str) -> Iterator[Ref]:
    if config_map in source:
        yield Ref("configmaps", namespace, str(source[config_map].get("name", "")))
    if secret in source:
        yield Ref("secrets", namespace, str(source[secret].get("name", "")))
