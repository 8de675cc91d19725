"""Kinds that are answered, not stored: reviews, bindings, measurements. Listed for discovery and explain."""

from typing import Final

from controller.kinds.columns import AGE, at
from controller.kinds.kind import Kind
from controller.kinds.own_schemas import METRICS_GROUP, METRICS_PREFIX

_CREATE: Final = ("create",)
_READ: Final = ("get", "list")


def _review(group: str, kind: str, *, namespaced: bool = False) -> Kind:
    package = group.partition(".")[0]
    return Kind(
        group=group,
        version="v1",
        kind=kind,
        plural=f"{kind.lower()}s",
        schema=f"io.k8s.api.{package}.v1.{kind}",
        namespaced=namespaced,
        singular=kind.lower(),
        verbs=_CREATE,
        generation_fields=(),
    )


KINDS: Final = (
    _review("authentication.k8s.io", "TokenReview"),
    _review("authentication.k8s.io", "SelfSubjectReview"),
    _review("authorization.k8s.io", "SubjectAccessReview"),
    _review("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization.k8s.io", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "SelfSubjectRulesReview"),
    Kind(
        group="",
        version="v1",
        kind="Binding",
        plural="bindings",
        schema="io.k8s.api.core.v1.Binding",
        singular="binding",
        verbs=_CREATE,
        generation_fields=(),
    ),
    Kind(
        group=METRICS_GROUP,
        version="v1beta1",
        kind="NodeMetrics",
        plural="nodes",
        schema=f"{METRICS_PREFIX}NodeMetrics",
        namespaced=False,
        singular="",
        verbs=_READ,
        columns=(at("cpu", "usage.cpu"), at("memory", "usage.memory"), at("window", "window"), AGE),
        generation_fields=(),
    ),
    Kind(
        group=METRICS_GROUP,
        version="v1beta1",
        kind="PodMetrics",
        plural="pods",
        schema=f"{METRICS_PREFIX}PodMetrics",
        singular="",
        verbs=_READ,
        columns=(at("window", "window"), AGE),
        generation_fields=(),
    ),
)
