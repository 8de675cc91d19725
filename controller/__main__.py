"""sphere-controller: builds every part from the config and runs them in one task tree. No decisions here.

etcd -> store, cache -> api <- HTTPS
                  \\-> view -> reconcilers, scheduler, network planner -> local client -> api -> store
"""

import asyncio
from collections.abc import Callable

from common.clock import SystemClock
from common.entry import daemon
from common.logs import logger
from common.tls import client_context, server_context
from controller.api import eviction, metrics_api, openapi, pod_actions, proxy, rbac_bootstrap, reviews, streams
from controller.api.admission.service_ip import ServiceAllocator
from controller.api.api import Api
from controller.api.assemble import assemble, fields_of
from controller.api.authn import Authentication
from controller.api.authz import Authorization
from controller.api.bootstrap import bootstrap
from controller.api.custom_resources import CustomResources
from controller.api.local import LocalClient
from controller.api.metrics import ApiMetrics
from controller.api.server import Server, listening_sockets
from controller.api.signer import CertificateAuthority, Signer
from controller.api.spherelets import Spherelets
from controller.api.tokens import Tokens
from controller.config import ControllerSettings
from controller.kinds.kind import ResourceKey
from controller.kinds.registry import REGISTRY, Registry
from controller.network.run import build as build_network
from controller.runtime.assembly import ControllerPorts
from controller.runtime.assembly import run as run_controllers
from controller.scheduler.binding import Binder
from controller.store.cache import Cache, wait_for_etcd
from controller.store.compaction import compact_forever
from controller.store.etcd import Etcd
from controller.store.objects import Store

log = logger("controller")
NAME = "sphere-controller"


async def run(settings: ControllerSettings) -> None:
    """Everything, until cancelled."""
    clock, metrics = SystemClock(), ApiMetrics()
    etcd = Etcd(settings.etcd.endpoints, settings.etcd.tls)
    await wait_for_etcd(etcd, clock)
    store = Store(etcd, clock, metrics.etcd_txn_s)
    kinds = REGISTRY.fork()
    cache = Cache(etcd, clock, fields_of(kinds))
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.run())
        group.create_task(compact_forever(etcd, cache, clock))
        await cache.wait_synced()
        CustomResources(cache, kinds)
        spherelets = Spherelets(cache, client_context(settings.spherelet.tls))
        binder = Binder(cache, store, clock, settings.network.block_prefix)
        api = _api(settings, kinds, store, cache, clock, metrics, spherelets, binder)
        client = LocalClient(api, NAME)
        port = int(settings.api.listen.rpartition(":")[2] or 6443)
        await bootstrap(client, settings.api.advertise, settings.network.service_cidr, port)
        await rbac_bootstrap.reconcile(client)
        signer_cas = [settings.api.signer.cert] if settings.api.signer is not None else []
        context = server_context(settings.api.tls, client_certificate=False, more_client_cas=signer_cas)
        group.create_task(Server(api, context).run(listening_sockets(settings.api.listen)))
        if settings.api.signer is not None:
            authority = CertificateAuthority(settings.api.signer.cert, settings.api.signer.key)
            signer_client = LocalClient(api, "system:serviceaccount:kube-system:certificate-controller")
            group.create_task(Signer(authority, cache, signer_client, clock).run())
        network = build_network(cache, client, settings.broker, clock, metrics.registry)
        group.create_task(network.run())
        group.create_task(
            run_controllers(
                ControllerPorts(
                    cache=cache,
                    client=lambda name: LocalClient(api, name),
                    acknowledged=lambda: store.acknowledged,
                    binder=binder,
                    clock=clock,
                    ca_pem=settings.api.tls.ca.read_text(),
                    pod_cidr=settings.network.pod_cidr,
                    segment_prefix=settings.network.segment_prefix,
                    block_prefix=settings.network.block_prefix,
                    forgotten=network.forgotten,
                    registry=metrics.registry,
                )
            )
        )
        try:
            await asyncio.Event().wait()
        finally:
            await spherelets.close()
            await etcd.close()


def _api(
    settings: ControllerSettings,
    kinds: Registry,
    store: Store,
    cache: Cache,
    clock: SystemClock,
    metrics: ApiMetrics,
    spherelets: Spherelets,
    binder: Binder,
) -> Api:
    key = settings.api.service_account_key.read_bytes()
    tokens = Tokens(key, settings.api.service_account_issuer, clock, _uid_of(cache))
    authorization = Authorization(cache)
    api = assemble(
        kinds=kinds,
        store=store,
        cache=cache,
        clock=clock,
        authenticator=Authentication(tokens),
        authorizer=authorization,
        metrics=metrics,
        advertise=f"{settings.api.advertise}:{settings.api.listen.rpartition(':')[2] or 6443}",
        admission=[ServiceAllocator(cache, clock, settings.network.service_cidr).admit, authorization.admit],
    )
    reviews.install(api.routes, tokens, authorization, jwks_uri=f"{settings.api.service_account_issuer}/openid/v1/jwks")
    streams.install(api.routes, spherelets)
    proxy.install(api.routes, spherelets)
    pod_actions.install(api.routes, binder)
    eviction.install(api.routes)
    metrics_api.install(api.routes, spherelets, clock)
    openapi.install(api.routes, kinds.all)
    return api


def _uid_of(cache: Cache) -> Callable[[ResourceKey, str, str], str | None]:
    def uid(resource: ResourceKey, namespace: str, name: str) -> str | None:
        entry = cache.get(resource, namespace, name)
        return entry.uid if entry is not None else None

    return uid


main = daemon(NAME, ControllerSettings, run)

if __name__ == "__main__":
    main()
