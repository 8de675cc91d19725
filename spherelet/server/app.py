"""The HTTPS server: who may ask for what, and which handler answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from common.clock import Clock, parse_rfc3339
from common.tls import server_context
from spherelet.config import Server as ServerConfig
from spherelet.model import ContainerState, PodView
from spherelet.report import ID_PREFIX, statuses
from spherelet.server import commands, logs, portforward
from spherelet.server.crilog import Selection
from spherelet.server.ports import Pods
from spherelet.stats import Stats

REQUEST_LINE_MAX: Final = 1 << 20
"""Bytes: the words of a command are in the URL, as they come from the API server."""
CONTROLLER: Final = "sphere-controller"
MONITORS: Final = ("prometheus", "system:monitoring")
"""Common name or organization that may read metrics."""
OPEN_PATHS: Final = ("/healthz", "/readyz")
METRICS_PATHS: Final = ("/metrics", "/metrics/resource", "/metrics/cadvisor", "/stats/summary")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def identity(request: web.Request) -> frozenset[str]:
    """Common name and organizations of the verified client certificate; empty without one."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    certificate = (tls.getpeercert() if tls is not None else None) or {}
    return frozenset(
        value
        for rdn in certificate.get("subject", ())
        for name, value in rdn
        if name in ("commonName", "organizationName")
    )


@web.middleware
async def authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The controller may do everything, monitoring may read metrics, anybody may ask for health."""
    if request.path not in OPEN_PATHS:
        who = identity(request)
        if not who:
            raise web.HTTPUnauthorized(text="Unauthorized: present a client certificate of the cluster's CA\n")
        may_read = request.path in METRICS_PATHS and not who.isdisjoint(MONITORS)
        if CONTROLLER not in who and not may_read:
            raise web.HTTPForbidden(text=f"Forbidden: {sorted(who)} may not use {request.path} of this host\n")
    return await handler(request)


class Server:
    """Serves until cancelled."""

    def __init__(
        self,
        config: ServerConfig,
        pods: Pods,
        stats: Stats,
        registry: CollectorRegistry,
        clock: Clock,
        problems: Callable[[], Sequence[str]],
        before_scrape: Callable[[], None] = lambda: None,
    ) -> None:
        """``problems`` names why this host is not ready; empty when it is. ``before_scrape`` sets gauges."""
        self._config = config
        self._pods = pods
        self._stats = stats
        self._registry = registry
        self._clock = clock
        self._problems = problems
        self._before_scrape = before_scrape
        self.port = 0
        """Where it listens, once ``run`` has begun."""
        self.listening = asyncio.Event()

    def application(self) -> web.Application:
        """Routes and their handlers."""
        app = web.Application(middlewares=[authorise])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/metrics/resource", self._resource)
        app.router.add_get("/metrics/cadvisor", self._cadvisor)
        app.router.add_get("/stats/summary", self._summary)
        app.router.add_get("/pods", self._pod_list)
        app.router.add_get("/runningpods", self._running_pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for path, handler in (
            ("/exec/{namespace}/{pod}/{container}", self._exec),
            ("/attach/{namespace}/{pod}/{container}", self._attach),
            ("/portForward/{namespace}/{pod}", self._port_forward),
        ):
            app.router.add_get(path, handler)
            app.router.add_post(path, handler)  # how clients ask that upgrade to SPDY
        return app

    async def run(self) -> None:
        """Listen with mutual TLS until cancelled."""
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            shutdown_timeout=1.0,
            handler_cancellation=True,
            max_line_size=REQUEST_LINE_MAX,
        )
        await runner.setup()
        try:
            host, _, port = self._config.listen.rpartition(":")
            context = server_context(self._config.tls, client_certificate=False)
            site = web.TCPSite(runner, host, int(port), ssl_context=context, reuse_address=True)
            await site.start()
            self.port = int(runner.addresses[0][1])
            self.listening.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    # ---- health and figures --------------------------------------------------------------------------------

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = self._problems()
        return web.Response(text="\n".join(problems) + "\n", status=503) if problems else web.Response(text="ok")

    async def _metrics(self, request: web.Request) -> web.Response:
        self._before_scrape()
        text = generate_latest(self._registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _resource(self, request: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(self._stats.resource_metrics))

    async def _cadvisor(self, request: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(self._stats.cadvisor_metrics))

    async def _summary(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._stats.summary))

    async def _pod_list(self, request: web.Request) -> web.Response:
        return _json(
            {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [p.body for p in self._pods.pods()]}
        )

    async def _running_pods(self, request: web.Request) -> web.Response:
        items = []
        for pod in self._pods.pods():
            names = [n for n, attempts in self._pods.containers(pod.uid).items() if attempts and attempts[-1].running]
            if names:
                meta = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
                spec = {"containers": [{"name": name} for name in names]}
                items.append({"metadata": meta, "spec": spec, "status": {}})
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    # ---- streams of a container ----------------------------------------------------------------------------

    def _find_pod(self, request: web.Request) -> PodView:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._pods.pod(namespace, name)
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{name}_{namespace}" is not on this host\n')
        return pod

    def _attempts(self, request: web.Request) -> tuple[PodView, tuple[ContainerState, ...]]:
        pod, name = self._find_pod(request), request.match_info["container"]
        attempts = self._pods.containers(pod.uid).get(name, ())
        if not attempts and pod.container(name) is None:
            raise web.HTTPNotFound(text=f"container {name} is not valid for pod {pod.name}\n")
        return pod, attempts

    def _running(self, request: web.Request) -> tuple[PodView, ContainerState]:
        pod, attempts = self._attempts(request)
        if not attempts or not attempts[-1].running:
            raise web.HTTPInternalServerError(
                text=f'unable to upgrade connection: container not running ("{request.match_info["container"]}")\n'
            )
        return pod, attempts[-1]

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod, attempts = self._attempts(request)
        name = request.match_info["container"]
        wanted = parse_log_query(request, self._clock.now())
        if commands.flag(request, "previous"):
            state = previous_attempt(pod, name, attempts)
            if state is None:
                text = f'previous terminated container "{name}" in pod "{pod.name}" not found'
                raise web.HTTPBadRequest(text=text)
        else:
            state = attempts[-1] if attempts else None
        if state is None or not state.log_path.exists():
            why = waiting_reason(pod, name)
            raise web.HTTPBadRequest(text=f'container "{name}" in pod "{pod.name}" is waiting to start: {why}')
        pieces = logs.read(state.log_path, wanted, ended=state.exit is not None)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        try:
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except (ConnectionError, FileNotFoundError):
            pass
        finally:
            await pieces.aclose()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, state = self._running(request)
        return await commands.handle_exec(request, self._pods.runtime_command(state.handler), state)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        pod, state = self._running(request)
        view = pod.container(state.name)
        spec: dict[str, Any] = view.spec if view is not None else {}
        stdin, once, tty = (bool(spec.get(name)) for name in ("stdin", "stdinOnce", "tty"))
        return await commands.handle_attach(request, state, stdin=stdin, once=once, tty=tty)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._find_pod(request)
        if not any(attempts and attempts[-1].running for attempts in self._pods.containers(pod.uid).values()):
            raise web.HTTPInternalServerError(text=f"unable to forward port: pod {pod.name} is not running\n")
        return await portforward.handle(request, pod.name, self._pods.netns(pod.uid))


def previous_attempt(pod: PodView, name: str, attempts: Sequence[ContainerState]) -> ContainerState | None:
    """Whose log ``--previous`` means: the attempt that the pod's status shows as the last one that ended."""
    ended = (container_status(pod, name).get("lastState") or {}).get("terminated") or {}
    shown = str(ended.get("containerID") or "").removeprefix(ID_PREFIX)
    found = next((each for each in attempts if each.id == shown), None)
    return found or (attempts[-2] if len(attempts) > 1 else None)


def waiting_reason(pod: PodView, name: str) -> str:
    """Why a container has no log yet, in kubelet's words."""
    waiting = (container_status(pod, name).get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "ContainerCreating")
    return "trying and failing to pull image" if reason in ("ErrImagePull", "ImagePullBackOff") else reason


def container_status(pod: PodView, name: str) -> dict[str, Any]:
    """The status of one container that the API last told; empty without one."""
    return next((each for each in statuses(pod.status) if each["name"] == name), {})


def parse_log_query(request: web.Request, now: float) -> logs.LogRequest:
    """The query of ``/containerLogs`` (``v1.PodLogOptions``). Raises 400 for what is not a number or a time."""
    query = request.query

    def number(name: str, least: int) -> int | None:
        if name not in query:
            return None
        try:
            value = int(query[name])
        except ValueError:
            value = least - 1
        if value < least:
            raise web.HTTPBadRequest(text=f"{name}: must be an integer of at least {least}, not {query[name]!r}\n")
        return value

    since_s = number("sinceSeconds", 1)
    since = now - since_s if since_s is not None else None
    if "sinceTime" in query:
        try:
            since = parse_rfc3339(query["sinceTime"])
        except ValueError as err:
            raise web.HTTPBadRequest(text=f"sinceTime: not RFC 3339: {query['sinceTime']!r}\n") from err
    stream = query.get("stream", "All").lower()
    if stream not in ("all", "stdout", "stderr"):
        raise web.HTTPBadRequest(text=f"stream: must be All, Stdout or Stderr, not {query['stream']!r}\n")
    return logs.LogRequest(
        Selection(since, "" if stream == "all" else stream, commands.flag(request, "timestamps")),
        follow=commands.flag(request, "follow"),
        tail_lines=number("tailLines", 0),
        limit_bytes=number("limitBytes", 1),
    )


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
