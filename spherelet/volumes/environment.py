"""Environment variables of a container, in upstream's order: services, envFrom, env; later ones win."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Protocol

from common.errors import Terminal
from spherelet.volumes import fields, references
from spherelet.volumes.expansion import expand
from spherelet.volumes.references import Ref

Object = dict[str, Any]


class Lookup(Protocol):
    """What is needed of ``Sources``."""

    def retain(self, pod_uid: str, refs: frozenset[Ref]) -> None: ...

    async def get(self, ref: Ref) -> Object | None: ...

    async def services(self) -> Mapping[tuple[str, str], Object]: ...


class Environment:
    """Builds environments; see ``spherelet.seams.Environment``."""

    def __init__(self, sources: Lookup, allocatable: Mapping[str, str]) -> None:
        """``allocatable`` is the node's, for resourceFieldRefs without a limit."""
        self._sources = sources
        self._allocatable = allocatable

    async def __call__(self, pod: Object, container: Object, pod_ip: str, host_ip: str) -> list[tuple[str, str]]:
        """Names are unique, in order of first appearance. ``Terminal`` carries the CreateContainerConfigError text."""
        self._sources.retain(pod["metadata"]["uid"], references.of_pod(pod))
        values: dict[str, str] = {}
        for each in container.get("envFrom") or ():
            values.update(await self._env_from(pod, each))
        services = service_variables(
            await self._sources.services(),
            pod["metadata"].get("namespace", "default"),
            links=pod["spec"].get("enableServiceLinks", True) is not False,
        )
        for each in container.get("env") or ():
            name = str(each["name"])
            if each.get("valueFrom"):
                found = await self._value_from(pod, container, each["valueFrom"], pod_ip, host_ip)
                if found is None:
                    continue
                values[name] = found
            else:
                values[name] = expand(str(each.get("value") or ""), {**services, **values})
        return list({**services, **values}.items())

    async def _env_from(self, pod: Object, source: Object) -> dict[str, str]:
        prefix = str(source.get("prefix") or "")
        for key, plural, kind in (("configMapRef", "configmaps", "configmap"), ("secretRef", "secrets", "secret")):
            if key in source:
                named = source[key]
                body = await self._object(pod, plural, named)
                if body is None:
                    if named.get("optional"):
                        return {}
                    raise Terminal(f'{kind} "{named.get("name", "")}" not found')
                return {prefix + name: value for name, value in texts(body).items()}
        return {}

    async def _value_from(
        self, pod: Object, container: Object, source: Object, pod_ip: str, host_ip: str
    ) -> str | None:
        if "fieldRef" in source:
            ips = (pod_ip,) if pod_ip else ()
            return fields.field(pod, str(source["fieldRef"].get("fieldPath")), pod_ips=ips, host_ip=host_ip)
        if "resourceFieldRef" in source:
            wanted = source["resourceFieldRef"]
            of = next((c for c in _containers(pod) if c["name"] == wanted.get("containerName")), container)
            return fields.resource(of, wanted, self._allocatable)
        for key, plural, kind in (
            ("configMapKeyRef", "configmaps", "ConfigMap"),
            ("secretKeyRef", "secrets", "Secret"),
        ):
            if key in source:
                named = source[key]
                body = await self._object(pod, plural, named)
                if body is None:
                    if named.get("optional"):
                        return None
                    raise Terminal(f'{kind.lower()} "{named.get("name", "")}" not found')
                found = texts(body).get(str(named.get("key")))
                if found is None and not named.get("optional"):
                    where = f"{pod['metadata'].get('namespace', 'default')}/{named.get('name', '')}"
                    raise Terminal(f"couldn't find key {named.get('key')} in {kind} {where}")
                return found
        return None

    async def _object(self, pod: Object, plural: str, named: Object) -> Object | None:
        namespace = pod["metadata"].get("namespace", "default")
        return await self._sources.get(Ref(plural, namespace, str(named.get("name", ""))))


def _containers(pod: Object) -> list[Object]:
    return [*(pod["spec"].get("initContainers") or ()), *(pod["spec"].get("containers") or ())]


def texts(body: Object) -> dict[str, str]:
    """Data of a ConfigMap (as is) or a Secret (decoded) as text; bytes that are not UTF-8 are replaced."""
    data = body.get("data") or {}
    if is_secret(body):
        return {key: b64decode(value or "").decode(errors="replace") for key, value in data.items()}
    return {key: str(value) for key, value in data.items()}


def is_secret(body: Object) -> bool:
    """Objects inside a list may lack their kind; every Secret has a type."""
    return body.get("kind") == "Secret" or ("kind" not in body and "type" in body)


def service_variables(services: Mapping[tuple[str, str], Object], namespace: str, *, links: bool) -> dict[str, str]:
    """``NAME_SERVICE_HOST`` and its Docker-links relatives: of ``kubernetes``, and with ``links`` of the namespace."""
    values: dict[str, str] = {}
    for (where, name), service in sorted(services.items()):
        master = (where, name) == ("default", "kubernetes")
        if not master and not (links and where == namespace):
            continue
        if name == "kubernetes" and not master and ("default", "kubernetes") in services:
            continue
        values.update(_service_variables(name.upper().replace("-", "_"), service))
    return values


def _service_variables(prefix: str, service: Object) -> dict[str, str]:
    address, ports = service["address"], service["ports"]
    if not ports:
        return {}
    first = ports[0]
    host = f"[{address}]" if ":" in address else address
    values = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first["port"])}
    for port in ports:
        if port.get("name"):
            values[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    values[f"{prefix}_PORT"] = f"{first.get('protocol', 'TCP').lower()}://{host}:{first['port']}"
    for port in ports:
        protocol = port.get("protocol", "TCP")
        stem = f"{prefix}_PORT_{port['port']}_{protocol}"
        values[stem] = f"{protocol.lower()}://{host}:{port['port']}"
        values[f"{stem}_PROTO"] = protocol.lower()
        values[f"{stem}_PORT"] = str(port["port"])
        values[f"{stem}_ADDR"] = address
    return values
