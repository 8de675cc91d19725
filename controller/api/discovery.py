"""Discovery documents: /api, /apis, /api/v1, /apis/<group>/<version>, aggregated discovery, /version. Pure."""

import platform
from collections.abc import Iterable

from controller.kinds.kind import Kind, Object

GIT_VERSION = "v1.36.0-sphere"
_SUBRESOURCE_VERBS = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "finalize": ("update",),
    "approval": ("get", "patch", "update"),
    "ephemeralcontainers": ("get", "patch", "update"),
    "resize": ("get", "patch", "update"),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
}
_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}


def _special(kind: Kind, subresource: str) -> tuple[str, str, str] | None:
    """(group, version, kind) of a subresource that is not its resource's own kind."""
    if subresource == "proxy":
        return kind.group, kind.version, f"{kind.kind}ProxyOptions"
    return _SUBRESOURCE_KINDS.get(subresource)


def version() -> Object:
    """``version.Info``."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": f"linux/{machine}",
    }


def api_versions(address: str) -> Object:
    """``/api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _groups(kinds: Iterable[Kind]) -> dict[str, dict[str, list[Kind]]]:
    groups: dict[str, dict[str, list[Kind]]] = {}
    for kind in kinds:
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return groups


def group_list(kinds: Iterable[Kind]) -> Object:
    """``/apis``."""
    groups = [_group(name, versions) for name, versions in _groups(kinds).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _group(name: str, versions: Iterable[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group(kinds: Iterable[Kind], name: str) -> Object | None:
    """``/apis/<group>``."""
    versions = _groups(kinds).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions and name else None


def resource_list(kinds: Iterable[Kind], name: str, version: str) -> Object | None:
    """``/api/v1`` and ``/apis/<group>/<version>``."""
    found = _groups(kinds).get(name, {}).get(version)
    if not found:
        return None
    resources: list[Object] = []
    for kind in found:
        resources.append(_resource(kind))
        resources += [_subresource(kind, sub) for sub in kind.subresources]
    api_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}


def _resource(kind: Kind) -> Object:
    made: Object = {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    return made


def _subresource(kind: Kind, name: str) -> Object:
    made: Object = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced}
    special = _special(kind, name)
    if special is not None:
        group_name, version_name, kind_name = special
        if group_name:
            made["group"] = group_name
        made["version"] = version_name
        made["kind"] = kind_name
    else:
        made["kind"] = kind.kind
    made["verbs"] = list(_SUBRESOURCE_VERBS.get(name, ("get",)))
    return made


def aggregated(kinds: Iterable[Kind], *, core: bool) -> Object:
    """``apidiscovery.k8s.io/v2`` APIGroupDiscoveryList: of ``/api`` when ``core``, else of ``/apis``."""
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [_aggregated_version(version, found) for version, found in versions.items()],
        }
        for name, versions in _groups(kinds).items()
        if (name == "") is core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_version(version: str, kinds: list[Kind]) -> Object:
    return {"version": version, "resources": [_aggregated_resource(kind) for kind in kinds], "freshness": "Current"}


def _aggregated_resource(kind: Kind) -> Object:
    made: Object = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular or kind.kind.lower(),
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    if kind.subresources:
        made["subresources"] = [_aggregated_subresource(kind, name) for name in kind.subresources]
    return made


def _aggregated_subresource(kind: Kind, name: str) -> Object:
    group_name, version_name, kind_name = _special(kind, name) or (kind.group, kind.version, kind.kind)
    return {
        "subresource": name,
        "responseKind": {"group": group_name, "version": version_name, "kind": kind_name},
        "verbs": list(_SUBRESOURCE_VERBS.get(name, ("get",))),
    }
