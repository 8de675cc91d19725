"""RBAC: rules, how they match, and an index of who has which. Pure but for being fed by the cache.

Spec: kube ``plugin/pkg/auth/authorizer/rbac`` and ``pkg/registry/rbac/validation``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.api.access import Attributes, User
from controller.kinds import rules as kind_rules
from controller.kinds.kind import Object, ResourceKey

GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = ResourceKey(GROUP, "roles")
CLUSTER_ROLES: Final = ResourceKey(GROUP, "clusterroles")
ROLE_BINDINGS: Final = ResourceKey(GROUP, "rolebindings")
CLUSTER_ROLE_BINDINGS: Final = ResourceKey(GROUP, "clusterrolebindings")
RESOURCES: Final = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)


@dataclass(frozen=True, slots=True)
class Rule:
    """A ``PolicyRule`` with sets for look-up."""

    verbs: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    @staticmethod
    def of(raw: Mapping[str, Any]) -> "Rule":
        return Rule(
            frozenset(raw.get("verbs") or ()),
            frozenset(raw.get("apiGroups") or ()),
            frozenset(raw.get("resources") or ()),
            frozenset(raw.get("resourceNames") or ()),
            tuple(raw.get("nonResourceURLs") or ()),
        )

    def to_object(self) -> Object:
        """Back to a ``PolicyRule``."""
        found: Object = {"verbs": sorted(self.verbs)}
        for key, values in (
            ("apiGroups", sorted(self.groups)),
            ("resources", sorted(self.resources)),
            ("resourceNames", sorted(self.names)),
            ("nonResourceURLs", list(self.urls)),
        ):
            if values:
                found[key] = values
        return found

    def allows(self, asked: Attributes) -> bool:
        """Whether this rule grants what is asked."""
        if asked.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not asked.resource:
            return any(_url_matches(url, asked.path) for url in self.urls)
        if asked.group not in self.groups and "*" not in self.groups:
            return False
        if not self._resource_matches(asked.resource, asked.subresource):
            return False
        return not self.names or asked.name in self.names

    def _resource_matches(self, resource: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources


def _url_matches(pattern: str, path: str) -> bool:
    if pattern == "*" or pattern == path:
        return True
    return pattern.endswith("*") and path.startswith(pattern[:-1])


@dataclass(frozen=True, slots=True)
class Binding:
    """Who gets which role. ``namespace`` is empty for a ClusterRoleBinding."""

    name: str
    namespace: str
    role_kind: str
    role_name: str
    subjects: tuple[str, ...]


def subject_keys(subjects: Iterable[Mapping[str, Any]], namespace: str) -> Iterator[str]:
    """``u:<user>`` or ``g:<group>`` per subject; service accounts become their user names."""
    for subject in subjects:
        match subject.get("kind"):
            case "ServiceAccount":
                home = subject.get("namespace") or namespace
                yield f"u:system:serviceaccount:{home}:{subject.get('name')}"
            case "User":
                yield f"u:{subject.get('name')}"
            case "Group":
                yield f"g:{subject.get('name')}"


def user_keys(user: User) -> Iterator[str]:
    yield f"u:{user.name}"
    for group in user.groups:
        yield f"g:{group}"


class RbacIndex:
    """Roles and bindings by name and by subject, kept current with ``put`` and ``remove``."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        self._aggregated: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}
        self._bindings: dict[tuple[str, str], Binding] = {}
        self._by_subject: dict[str, dict[tuple[str, str], Binding]] = defaultdict(dict)

    def put(self, resource: ResourceKey, obj: Object) -> None:
        """An object was added or changed."""
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if resource in (ROLES, CLUSTER_ROLES):
            kind = "Role" if resource == ROLES else "ClusterRole"
            self._rules[kind, namespace, name] = tuple(Rule.of(raw) for raw in obj.get("rules") or [])
            if kind == "ClusterRole":
                self._labels[name] = meta.get("labels") or {}
                self._aggregated.pop(name, None)
                if obj.get("aggregationRule"):
                    self._aggregated[name] = obj["aggregationRule"].get("clusterRoleSelectors") or []
        elif resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            self.remove(resource, namespace, name)
            ref = obj.get("roleRef") or {}
            subjects = tuple(subject_keys(obj.get("subjects") or [], namespace))
            binding = Binding(name, namespace, ref.get("kind", ""), ref.get("name", ""), subjects)
            self._bindings[namespace, name] = binding
            for subject in subjects:
                self._by_subject[subject][namespace, name] = binding

    def remove(self, resource: ResourceKey, namespace: str, name: str) -> None:
        """An object is gone."""
        if resource in (ROLES, CLUSTER_ROLES):
            self._rules.pop(("Role" if resource == ROLES else "ClusterRole", namespace, name), None)
            if resource == CLUSTER_ROLES:
                self._labels.pop(name, None)
                self._aggregated.pop(name, None)
            return
        binding = self._bindings.pop((namespace, name), None)
        for subject in binding.subjects if binding else ():
            found = self._by_subject[subject]
            found.pop((namespace, name), None)
            if not found:
                del self._by_subject[subject]

    def rules_of(self, kind: str, namespace: str, name: str) -> tuple[Rule, ...]:
        """Rules of a role; for an aggregated cluster role those of every role its selectors match."""
        if kind == "Role":
            return self._rules.get(("Role", namespace, name), ())
        own = self._rules.get(("ClusterRole", "", name), ())
        selectors = self._aggregated.get(name)
        if selectors is None:
            return own
        found: dict[Rule, None] = dict.fromkeys(own)
        for other, labels in self._labels.items():
            if other != name and any(kind_rules.selects(selector, labels) for selector in selectors):
                found.update(dict.fromkeys(self.rules_of("ClusterRole", "", other)))
        return tuple(found)

    def granted(self, user: User, namespace: str) -> Iterator[tuple[Binding, Rule]]:
        """Every rule that ``user`` has in ``namespace`` (cluster-wide ones only, when it is empty)."""
        for key in user_keys(user):
            for binding in list(self._by_subject.get(key, {}).values()):
                if binding.namespace and binding.namespace != namespace:
                    continue
                for rule in self.rules_of(binding.role_kind, binding.namespace, binding.role_name):
                    yield binding, rule

    def allowed_by(self, user: User, asked: Attributes) -> Binding | None:
        """The binding that grants what is asked, or None."""
        for binding, rule in self.granted(user, asked.namespace):
            if rule.allows(asked):
                return binding
        return None


def covers(owned: Sequence[Rule], wanted: Rule) -> bool:
    """Whether ``owned`` rules together grant all of ``wanted`` (the escalation check)."""
    return all(any(_covers_one(rule, piece) for rule in owned) for piece in _pieces(wanted))


def _pieces(rule: Rule) -> Iterator[Rule]:
    """One rule per single verb and group, resource, name or URL."""
    for verb in rule.verbs:
        one = frozenset((verb,))
        for url in rule.urls:
            yield Rule(verbs=one, urls=(url,))
        for group in rule.groups:
            for resource in rule.resources:
                for name in rule.names or ("",):
                    names = frozenset((name,)) if name else frozenset[str]()
                    yield Rule(one, frozenset((group,)), frozenset((resource,)), names)


def _covers_one(owner: Rule, piece: Rule) -> bool:
    if "*" not in owner.verbs and not piece.verbs <= owner.verbs:
        return False
    if piece.urls:
        return any(_url_matches(pattern, piece.urls[0]) for pattern in owner.urls)
    if "*" not in owner.groups and not piece.groups <= owner.groups:
        return False
    resource = next(iter(piece.resources))
    parts = resource.split("/", 1)
    known = "*" in owner.resources or resource in owner.resources
    if not known and not (len(parts) == 2 and f"*/{parts[1]}" in owner.resources):
        return False
    return not owner.names or (bool(piece.names) and piece.names <= owner.names)
