"""Puts the API together from its parts."""

from collections.abc import Sequence

from common.clock import Clock
from controller.api import system
from controller.api.access import Authenticator, Authorizer
from controller.api.admission import (
    Admission,
    Step,
    default_tolerations,
    namespace_lifecycle,
    node_restriction,
    pod_security,
    priority,
    runtime_class,
    service_account,
)
from controller.api.admission.certificates import CertificateAdmission
from controller.api.admission.limit_ranger import LimitRanger
from controller.api.admission.resource_quota import QuotaKeeper
from controller.api.admission.storage import StorageDefaults
from controller.api.api import Api, Routes
from controller.api.metrics import ApiMetrics
from controller.api.ports import Kinds, Ports
from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.schemas import Schemas
from controller.store.cache import Cache
from controller.store.entry import FieldsOf
from controller.store.objects import Store

ADMISSION: tuple[Step, ...] = (
    namespace_lifecycle.admit,
    node_restriction.admit,
    service_account.admit,
    priority.admit,
    runtime_class.admit,
    default_tolerations.admit,
)
"""In order: refusals that need nothing completed come first."""


def fields_of(kinds: Kinds) -> FieldsOf:
    """Field selector values by the kinds' descriptors; empty ones are not stored."""

    def fields(resource: ResourceKey, obj: Object) -> dict[str, str]:
        try:
            kind = kinds.by_key(resource)
        except KeyError:
            return {}
        found = {path: text for path, value in kind.selectable_fields.items() if (text := value(obj))}
        if kind.indexed_fields:
            found.update((path, text) for path, value in kind.indexed_fields.items() if (text := value(obj)))
        return found

    return fields


def _is_known(kinds: Kinds, key: ResourceKey) -> bool:
    try:
        return bool(kinds.by_key(key))
    except KeyError:
        return False


def assemble(
    *,
    kinds: Kinds,
    store: Store,
    cache: Cache,
    clock: Clock,
    authenticator: Authenticator,
    authorizer: Authorizer,
    metrics: ApiMetrics,
    advertise: str,
    admission: Sequence[Step] = (),
) -> Api:
    """The API with its system paths; other modules add to ``api.routes``. ``admission`` comes after ``ADMISSION``."""
    ports = Ports(kinds, Schemas.load(), store, cache, clock)
    routes = Routes()
    system.register(routes, advertise)
    metrics.watch_store(lambda key: _is_known(kinds, key), cache.resources, cache.watchers, lambda: cache.revision)
    certificates = CertificateAdmission(authorizer, clock)
    ranger = LimitRanger(lambda resource, namespace: (entry.decode() for entry in cache.list(resource, namespace)))
    storage = StorageDefaults(lambda: [entry.decode() for entry in cache.list(claims.CLASSES)])
    chain = Admission(
        (*ADMISSION, storage.admit, certificates.admit, *admission, ranger.admit),
        (pod_security.judge, QuotaKeeper(cache, clock).admit),
        cache.get,
    )
    return Api(ports, authenticator, authorizer, chain, routes, metrics)
