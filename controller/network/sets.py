"""Which pods each selector stands for, kept current pod by pod: the work is the number of sets in reach. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.network.policy import CompiledPolicy, SetMember, SetSpec
from controller.network.views import Labels, NamedPort

PolicyKey = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod with an address of its own."""

    uid: str
    namespace: str
    address: str
    labels: Labels
    named_ports: tuple[NamedPort, ...]


@dataclass(slots=True)
class _Set:
    spec: SetSpec
    members: dict[str, SetMember] = field(default_factory=dict)
    scopes: Counter[str] = field(default_factory=Counter)
    """Namespaces whose policies refer to it, and how many do."""
    resolvers: set[PolicyKey] = field(default_factory=set)
    """Policies whose named ports depend on its members."""


class SetTable:
    """All sets that policies refer to. ``dirty_sets`` and ``dirty_policies`` collect what must be written again."""

    def __init__(self) -> None:
        self.dirty_sets: set[SetSpec] = set()
        self.dirty_policies: set[PolicyKey] = set()
        self._sets: dict[SetSpec, _Set] = {}
        self._by_namespace: dict[str, set[SetSpec]] = {}
        self._wide: set[SetSpec] = set()
        self._members: dict[str, Member] = {}
        self._members_of: dict[str, set[str]] = {}
        self._namespaces: dict[str, Labels] = {}

    # Policies

    def refer(self, key: PolicyKey, compiled: CompiledPolicy) -> None:
        """Policy ``key`` now uses these sets (besides those of its former version, until ``drop``)."""
        for spec in compiled.published:
            found = self._open(spec)
            found.scopes[key[0]] += 1
            if found.scopes[key[0]] == 1:
                self.dirty_sets.add(spec)
        for spec in compiled.resolved:
            self._open(spec).resolvers.add(key)

    def drop(self, key: PolicyKey, compiled: CompiledPolicy) -> Iterable[SetSpec]:
        """Policy ``key`` no longer uses these sets. Returns those that its namespace needs no more."""
        unused = []
        for spec in compiled.published:
            found = self._sets[spec]
            found.scopes[key[0]] -= 1
            if not found.scopes[key[0]]:
                del found.scopes[key[0]]
                unused.append(spec)
            self._close_if_unused(found)
        for spec in compiled.resolved:
            still = self._sets.get(spec)
            if still is not None:
                still.resolvers.discard(key)
                self._close_if_unused(still)
        return unused

    def members(self, spec: SetSpec) -> Iterable[SetMember]:
        found = self._sets.get(spec)
        return () if found is None else found.members.values()

    def scopes(self, spec: SetSpec) -> Iterable[str]:
        """Namespaces whose scope must hold the set."""
        found = self._sets.get(spec)
        return () if found is None else found.scopes.keys()

    def namespaces_knowing(self, uid: str) -> frozenset[str]:
        """Namespaces with a set that this pod is in."""
        member = self._members.get(uid)
        if member is None:
            return frozenset()
        found: set[str] = set()
        for spec in self._candidates(member.namespace):
            if uid in self._sets[spec].members:
                found.update(self._sets[spec].scopes)
        return frozenset(found)

    # Pods and namespaces

    def put_member(self, uid: str, member: Member | None) -> bool:
        """The pod is now this, or (None) has no address. True if that is news."""
        old = self._members.get(uid)
        if old == member:
            return False
        if old is not None:
            del self._members[uid]
            self._members_of[old.namespace].discard(uid)
        if member is not None:
            self._members[uid] = member
            self._members_of.setdefault(member.namespace, set()).add(uid)
        for spec in self._candidates(*{each.namespace for each in (old, member) if each is not None}):
            self._place(self._sets[spec], uid, member)
        return True

    def put_namespace(self, name: str, labels: Labels | None) -> None:
        """The namespace has these labels, or (None) is gone."""
        old = self._namespaces.get(name)
        if old == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        for spec in self._wide:
            if spec.matches_namespace(name, old) != spec.matches_namespace(name, labels):
                for uid in self._members_of.get(name, ()):
                    self._place(self._sets[spec], uid, self._members[uid])

    def _candidates(self, *namespaces: str) -> set[SetSpec]:
        found = set(self._wide)
        for name in namespaces:
            found |= self._by_namespace.get(name, set())
        return found

    def _place(self, found: _Set, uid: str, member: Member | None) -> None:
        fits = member is not None and self._fits(found.spec, member)
        now = SetMember(member.address, member.named_ports) if member is not None and fits else None
        if found.members.get(uid) == now:
            return
        if now is None:
            del found.members[uid]
        else:
            found.members[uid] = now
        self.dirty_sets.add(found.spec)
        self.dirty_policies.update(found.resolvers)

    def _fits(self, spec: SetSpec, member: Member) -> bool:
        return spec.matches(member.namespace, self._namespaces.get(member.namespace), member.labels)

    def _open(self, spec: SetSpec) -> _Set:
        found = self._sets.get(spec)
        if found is not None:
            return found
        found = self._sets[spec] = _Set(spec)
        if spec.cidr:
            return found
        if spec.namespaces is None:
            self._by_namespace.setdefault(spec.namespace, set()).add(spec)
            candidates: Iterable[str] = self._members_of.get(spec.namespace, ())
        else:
            self._wide.add(spec)
            candidates = self._members
        for uid in candidates:
            member = self._members[uid]
            if self._fits(spec, member):
                found.members[uid] = SetMember(member.address, member.named_ports)
        return found

    def _close_if_unused(self, found: _Set) -> None:
        if found.scopes or found.resolvers:
            return
        spec = found.spec
        del self._sets[spec]
        self._wide.discard(spec)
        same = self._by_namespace.get(spec.namespace)
        if same is not None:
            same.discard(spec)
            if not same:
                del self._by_namespace[spec.namespace]
        self.dirty_sets.discard(spec)

    def statistics(self) -> Mapping[str, int]:
        return {"sets": len(self._sets), "members": len(self._members)}
