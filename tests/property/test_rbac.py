"""RBAC's index against a slow oracle, and the escalation check against what it stands for."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.access import Attributes, User
from controller.api.rbac_index import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    RbacIndex,
    Rule,
    covers,
)

VERBS, GROUPS, KINDS, NAMES = ["get", "create", "*"], ["", "apps", "*"], ["pods", "pods/log", "*"], ["a", "b"]
SPACES, USERS = ["n1", "n2"], ["u1", "u2"]
rules = st.fixed_dictionaries(
    {
        "verbs": st.lists(st.sampled_from(VERBS), min_size=1, max_size=2),
        "apiGroups": st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2),
        "resources": st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
        "resourceNames": st.lists(st.sampled_from(NAMES), max_size=1),
    }
)
roles = st.dictionaries(st.tuples(st.sampled_from(["", *SPACES]), st.sampled_from(NAMES)), st.lists(rules, max_size=2))
bindings = st.lists(
    st.tuples(st.sampled_from(["", *SPACES]), st.sampled_from(["Role", "ClusterRole"]), st.sampled_from(NAMES),
              st.sampled_from(USERS)),
    max_size=4,
)  # fmt: skip
asked = st.builds(
    Attributes,
    st.sampled_from(["get", "create", "delete"]),
    st.sampled_from(["", "apps", "batch"]),
    st.sampled_from(["pods", "secrets"]),
    st.sampled_from(["", "log"]),
    st.sampled_from(["", *SPACES]),
    st.sampled_from(["", *NAMES]),
    st.just(""),
)


def build(all_roles: Any, all_bindings: Any) -> RbacIndex:
    index = RbacIndex()
    for (namespace, name), found in all_roles.items():
        meta = {"name": name, "namespace": namespace}
        index.put(ROLES if namespace else CLUSTER_ROLES, {"metadata": meta, "rules": found})
    for number, (namespace, kind, name, user) in enumerate(all_bindings):
        binding = {
            "metadata": {"name": f"b{number}", "namespace": namespace},
            "roleRef": {"kind": kind, "name": name},
            "subjects": [{"kind": "User", "name": user}],
        }
        index.put(ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS, binding)
    return index


def oracle(all_roles: Any, all_bindings: Any, user: str, want: Attributes) -> bool:
    for namespace, kind, name, who in all_bindings:
        if who != user or (namespace and namespace != want.namespace):
            continue
        for rule in (
            all_roles.get((namespace if kind == "Role" else "", name), []) if kind != "Role" or namespace else []
        ):
            resource = want.resource + (f"/{want.subresource}" if want.subresource else "")
            if not {want.verb, "*"} & set(rule["verbs"]) or not {want.group, "*"} & set(rule["apiGroups"]):
                continue
            if not {resource, "*"} & set(rule["resources"]):
                continue
            if not rule["resourceNames"] or want.name in rule["resourceNames"]:
                return True
    return False


@settings(max_examples=300, deadline=None)
@given(roles, bindings, st.sampled_from(USERS), asked)
def test_index_agrees_with_oracle(all_roles: Any, all_bindings: Any, user: str, want: Attributes) -> None:
    allowed = build(all_roles, all_bindings).allowed_by(User(user), want) is not None
    assert allowed == oracle(all_roles, all_bindings, user, want)


@settings(max_examples=300, deadline=None)
@given(st.lists(rules, max_size=3), rules, asked)
def test_covered_rules_grant_nothing_new(owned: Any, wanted: Any, want: Attributes) -> None:
    mine, theirs = [Rule.of(raw) for raw in owned], Rule.of(wanted)
    if covers(mine, theirs) and theirs.allows(want):
        assert any(rule.allows(want) for rule in mine)
