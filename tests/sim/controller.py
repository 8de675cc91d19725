"""sphere-controller as ``controller/__main__.py`` builds it, over fakes: only sockets and RBAC objects are missing."""

import asyncio
from collections.abc import Callable

from common.clock import Clock
from controller.api.access import CertificateAuthenticator, MastersAuthorizer
from controller.api.admission.service_ip import ServiceAllocator
from controller.api.assemble import assemble, fields_of
from controller.api.bootstrap import bootstrap
from controller.api.local import LocalClient
from controller.api.metrics import ApiMetrics
from controller.kinds.registry import REGISTRY
from controller.network.controller import NetworkController, NetworkPorts
from controller.network.publish import Broker
from controller.runtime.assembly import ControllerPorts
from controller.runtime.assembly import run as run_controllers
from controller.scheduler.binding import Binder
from controller.store.cache import Cache, wait_for_etcd
from controller.store.compaction import compact_forever
from controller.store.etcd import Kv
from controller.store.objects import Store

POD_CIDR, SERVICE_CIDR = "10.64.0.0/12", "10.96.0.0/16"
ADVERTISE = "172.30.0.2"


class ControllerProcess:
    """One life of the controller. ``api`` and ``network`` are None until it serves."""

    def __init__(
        self, etcd: Kv, session: Callable[[], Broker], clock: Clock, on_network: Callable[[NetworkController], None]
    ) -> None:
        self._etcd = etcd
        self._on_network = on_network
        self._session = session
        self._clock = clock
        self.cache: Cache | None = None
        self.network: NetworkController | None = None
        self._client: Callable[[str], LocalClient] | None = None

    @property
    def serving(self) -> bool:
        return self._client is not None

    def client(self, user: str) -> LocalClient:
        """A client of this life's API. Legal while ``serving``."""
        assert self._client is not None
        return self._client(user)

    async def run(self) -> None:
        """Until cancelled, as ``controller.__main__.run``."""
        clock, metrics, etcd = self._clock, ApiMetrics(), self._etcd
        await wait_for_etcd(etcd, clock)
        store = Store(etcd, clock, metrics.etcd_txn_s)
        self.cache = cache = Cache(etcd, clock, fields_of(REGISTRY))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(cache.run())
                group.create_task(compact_forever(etcd, cache, clock))
                await cache.wait_synced()
                binder = Binder(cache, store, clock, 28)
                api = assemble(
                    kinds=REGISTRY,
                    store=store,
                    cache=cache,
                    clock=clock,
                    authenticator=CertificateAuthenticator(),
                    authorizer=MastersAuthorizer(),
                    metrics=metrics,
                    advertise=f"{ADVERTISE}:6443",
                    admission=[ServiceAllocator(cache, clock, SERVICE_CIDR).admit],
                )
                await bootstrap(LocalClient(api, "sphere-controller"), ADVERTISE, SERVICE_CIDR, 6443)
                self._client = lambda user: LocalClient(api, user)
                ports = NetworkPorts(
                    reader=cache,
                    client=LocalClient(api, "sphere-controller"),
                    broker=self._session(),
                    clock=clock,
                    registry=metrics.registry,
                    epoch=str(cache.cluster_id),
                )
                self.network = NetworkController(ports)
                self._on_network(self.network)
                group.create_task(self.network.run())
                group.create_task(
                    run_controllers(
                        ControllerPorts(
                            cache=cache,
                            client=self._client,
                            acknowledged=lambda: store.acknowledged,
                            binder=binder,
                            clock=clock,
                            ca_pem="PEM",
                            pod_cidr=POD_CIDR,
                            segment_prefix=22,
                            block_prefix=28,
                            forgotten=self.network.forgotten,
                            registry=metrics.registry,
                        )
                    )
                )
        finally:
            self._client = None
