"""Wiring of the network controller to its real peers."""

from prometheus_client import CollectorRegistry

from common.broker import CONTROLLER
from common.clock import Clock
from common.mqtt import Broker, Session
from controller.network.conditions import StatusWriter
from controller.network.controller import NetworkController, NetworkPorts
from controller.store.cache import Cache


def build(
    cache: Cache, client: StatusWriter, broker: Broker, clock: Clock, registry: CollectorRegistry
) -> NetworkController:
    """The network controller of this process; call once ``cache`` is in sync, then await its ``run``.

    ``client`` is the API's local client. Its ``realization`` tells reconcilers what is in force where.
    """
    ports = NetworkPorts(
        reader=cache,
        client=client,
        broker=Session(broker, CONTROLLER, clock),
        clock=clock,
        registry=registry,
        epoch=str(cache.cluster_id),
    )
    return NetworkController(ports)
