"""May they: ``system:masters``, then the node authorizer, then RBAC; and the escalation check on writing roles."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.api.access import MASTERS, Attributes, Decision, User
from controller.api.admission import AdmissionRequest, Lookup
from controller.api.node_authorizer import NodeAuthorizer
from controller.api.rbac_index import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    RESOURCES,
    ROLE_BINDINGS,
    ROLES,
    RbacIndex,
    Rule,
    covers,
)
from controller.api.status import forbidden
from controller.kinds.kind import Object
from controller.store.cache import Cache, Change

ALWAYS_ALLOWED: Final = frozenset(("/healthz", "/livez", "/readyz"))


class Authorization:
    """The chain, on an index that follows the cache."""

    def __init__(self, cache: Cache) -> None:
        self._index = RbacIndex()
        self._node = NodeAuthorizer(cache)
        self._cache = cache
        cache.subscribe(RESOURCES, self._changed)
        for resource in RESOURCES:
            for entry in cache.list(resource):
                self._index.put(resource, entry.decode())

    @property
    def index(self) -> RbacIndex:
        return self._index

    def _changed(self, change: Change) -> None:
        entry = change.entry
        if change.type == "DELETED":
            self._index.remove(entry.resource, entry.namespace, entry.name)
        else:
            self._index.put(entry.resource, entry.decode())

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        """Never blocks."""
        if MASTERS in user.groups:
            return Decision(True)
        if not attributes.resource and attributes.path in ALWAYS_ALLOWED:
            return Decision(True)
        node = self._node.decide(user, attributes)
        if node is not None and node.allowed:
            return node
        binding = self._index.allowed_by(user, attributes)
        if binding is not None:
            kind = "RoleBinding" if binding.namespace else "ClusterRoleBinding"
            where = f" in {binding.namespace}" if binding.namespace else ""
            why = f'RBAC: allowed by {kind} "{binding.name}{where}" of {binding.role_kind} "{binding.role_name}"'
            return Decision(True, why)
        return Decision(False, node.reason if node is not None else "")

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Admission step: the escalation check on every write of a role or binding. Raises ``ApiError`` 403."""
        del lookup
        if request.operation != "DELETE" and request.kind.key in RESOURCES and not request.subresource:
            self.check_escalation(request.user, request.obj, request.old, request.kind.plural)

    def check_escalation(self, user: User, resource_obj: Object, old: Object | None, plural: str) -> None:
        """Refuse (``ApiError`` 403) roles and bindings that grant what ``user`` does not have, unless the verbs
        ``escalate`` or ``bind`` allow it. Unchanged grants pass."""
        if MASTERS in user.groups or plural not in {key.plural for key in RESOURCES}:
            return
        meta = resource_obj.get("metadata") or {}
        namespace, name = meta.get("namespace", ""), meta.get("name", "")
        if plural in (ROLES.plural, CLUSTER_ROLES.plural):
            self._check_role(user, resource_obj, old, plural)
            return
        if old is not None and all(resource_obj.get(k) == old.get(k) for k in ("subjects", "roleRef")):
            return
        ref: Mapping[str, Any] = resource_obj.get("roleRef") or {}
        target = CLUSTER_ROLES.plural if ref.get("kind") == "ClusterRole" else ROLES.plural
        if self._may(user, "bind", target, namespace, ref.get("name", "")):
            return
        wanted = self._index.rules_of(ref.get("kind", ""), namespace, ref.get("name", ""))
        key = ROLE_BINDINGS if plural == ROLE_BINDINGS.plural else CLUSTER_ROLE_BINDINGS
        self._refuse_uncovered(user, wanted, namespace, lambda why: forbidden(key, name, why))

    def _check_role(self, user: User, role: Object, old: Object | None, plural: str) -> None:
        meta = role.get("metadata") or {}
        namespace, name = meta.get("namespace", ""), meta.get("name", "")
        if old is not None and all(role.get(k) == old.get(k) for k in ("rules", "aggregationRule")):
            return
        if self._may(user, "escalate", plural, namespace, name):
            return
        wanted = [Rule.of(raw) for raw in role.get("rules") or []]
        if role.get("aggregationRule"):
            everything = frozenset(("*",))
            wanted += [Rule(everything, everything, everything), Rule(verbs=everything, urls=("*",))]
        key = ROLES if plural == ROLES.plural else CLUSTER_ROLES
        self._refuse_uncovered(user, tuple(wanted), namespace, lambda why: forbidden(key, name, why))

    def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        return self.authorize(user, Attributes(verb, GROUP, plural, "", namespace, name, "")).allowed

    def _refuse_uncovered(
        self, user: User, wanted: tuple[Rule, ...], namespace: str, refusal: Callable[[str], Exception]
    ) -> None:
        owned = [rule for _, rule in self._index.granted(user, namespace)]
        missing = [rule for rule in wanted if not covers(owned, rule)]
        if missing:
            listed = "\n".join(_describe(rule) for rule in missing)
            groups = " ".join(user.groups)
            raise refusal(
                f'user "{user.name}" (groups=["{groups}"]) is attempting to grant RBAC permissions not currently '
                f"held:\n{listed}"
            )


def _describe(rule: Rule) -> str:
    def quoted(values: Any) -> str:
        return "[" + " ".join(f'"{value}"' for value in sorted(values)) + "]"

    parts = [("NonResourceURLs", rule.urls), ("APIGroups", rule.groups), ("Resources", rule.resources)]
    parts += [("ResourceNames", rule.names), ("Verbs", rule.verbs)]
    return "{" + ", ".join(f"{name}:{quoted(values)}" for name, values in parts if values) + "}"
