"""Paths outside of the resource API: discovery, version, health, metrics."""

import orjson

from controller.api import discovery
from controller.api.api import Call, Routes
from controller.api.negotiate import negotiate
from controller.api.request import Answer, Reply
from controller.api.status import method_not_allowed, no_such_path
from controller.kinds.kind import Object

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def register(routes: Routes, advertise: str) -> None:
    """Serve them. ``advertise`` is this server's ``host:port`` as clients reach it."""

    async def api(call: Call) -> Answer:
        if negotiate(call.request.headers.get("Accept", "")).form == "aggregated-discovery":
            return _aggregated(call, core=True)
        return _json(discovery.api_versions(advertise))

    routes.paths["/api"] = api
    routes.paths["/apis"] = _groups
    routes.prefixes["/api/"] = _resources
    routes.prefixes["/apis/"] = _resources
    routes.paths["/version"] = _version
    routes.paths["/metrics"] = _metrics
    for path in ("/healthz", "/livez", "/readyz"):
        routes.paths[path] = _health
        routes.prefixes[path + "/"] = _health


def _json(obj: Object) -> Reply:
    return Reply(200, orjson.dumps(obj))


def _aggregated(call: Call, *, core: bool) -> Reply:
    body = orjson.dumps(discovery.aggregated(call.api.ports.kinds.all(), core=core))
    return Reply(200, body, AGGREGATED_TYPE)


async def _groups(call: Call) -> Answer:
    if negotiate(call.request.headers.get("Accept", "")).form == "aggregated-discovery":
        return _aggregated(call, core=False)
    return _json(discovery.group_list(call.api.ports.kinds.all()))


async def _resources(call: Call) -> Answer:
    if call.request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    parts = [part for part in call.request.path.split("/") if part]
    kinds = call.api.ports.kinds.all()
    made: Object | None = None
    match parts:
        case ["api", version]:
            made = discovery.resource_list(kinds, "", version)
        case ["apis", group]:
            made = discovery.group(kinds, group)
        case ["apis", group, version]:
            made = discovery.resource_list(kinds, group, version)
    if made is None:
        raise no_such_path()
    return _json(made)


async def _version(call: Call) -> Answer:
    return _json(discovery.version())


async def _metrics(call: Call) -> Answer:
    return Reply(200, call.api.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")


async def _health(call: Call) -> Answer:
    """``ok``, or the failed checks; ``?verbose`` lists all. A server without etcd lives but is not ready.

    ``/readyz/etcd`` makes one check alone, ``?exclude=etcd`` leaves it out.
    """
    _, probe, *one = call.request.path.rstrip("/").split("/")
    checks = {"ping": True}
    if probe != "livez":
        checks["etcd"] = call.api.ports.cache.connected
    if one:
        if "/".join(one) not in checks:
            raise no_such_path()
        checks = {one[0]: checks[one[0]]}
    checks = {name: good for name, good in checks.items() if name not in call.request.query.get("exclude", ())}
    good = all(checks.values())
    if good and "verbose" not in call.request.query:
        return Reply(200, b"ok", "text/plain; charset=utf-8")
    lines = [f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed: not reachable'}" for name, ok in checks.items()]
    lines.append(f"{probe} check {'passed' if good else 'failed'}")
    return Reply(200 if good else 500, "\n".join([*lines, ""]).encode(), "text/plain; charset=utf-8")
