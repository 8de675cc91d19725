"""What actions act on, and what becomes of those that fail."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from common.clock import Clock
from common.logs import logger
from spherelet import metrics
from spherelet.assembly import Assembly
from spherelet.config import Config, retry_base_s, retry_cap_s
from spherelet.events import Events
from spherelet.hooks import Hooks
from spherelet.images.store import Images
from spherelet.model import Failure
from spherelet.network import Network
from spherelet.observed import Record
from spherelet.runtime.client import Runtime
from spherelet.seams import Probes, Sandboxes, Volumes

log = logger("apply")


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that actions act on."""

    config: Config
    clock: Clock
    runtime: Runtime
    sandboxes: Sandboxes
    images: Images
    network: Network
    volumes: Volumes
    probes: Probes
    events: Events
    assembly: Assembly
    hooks: Hooks
    handler: Callable[[str], Awaitable[str]]
    """Runtime handler of a RuntimeClass name (empty = the default)."""
    credentials: Callable[[Record, str], Awaitable[dict[str, str] | None]]
    """Registry credentials for an image, of a pod's imagePullSecrets."""
    launch: Callable[[Record, str, Awaitable[None]], None]
    """Run something else for a pod under a busy key."""


def failure(old: Failure | None, reason: str, message: str, now: float, base_s: float, cap_s: float) -> Failure:
    """The next failure after ``old``: the same again doubles the time to the next try."""
    count = old.count + 1 if old is not None else 1
    return Failure(reason, message, now + min(cap_s, base_s * 2.0 ** min(20, count - 1)), count)


def failed(old: Failure | None, reason: str, err: Exception, ports: Ports, operation: str) -> Failure:
    metrics.operation_errors.labels(operation).inc()
    log.info("will retry", object=operation, reason=str(err))
    return failure(old, reason, str(err), ports.clock.now(), retry_base_s, retry_cap_s)
