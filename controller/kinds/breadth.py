"""Stable kinds that nothing here acts on yet: stored, validated by schema, discovered and explained.

One row per kind. A kind that grows behaviour moves to a file of its own.
"""

from typing import Final, NamedTuple

from controller.kinds.columns import AGE, at
from controller.kinds.kind import Column, Kind


class Row(NamedTuple):
    """A kind without behaviour. ``sub`` holds its subresources, space separated; so does ``short``."""

    kind: str
    plural: str
    short: str = ""
    namespaced: bool = True
    sub: str = ""
    categories: str = ""
    columns: tuple[Column, ...] = (AGE,)
    generation: str = "spec"


_TABLE: Final[dict[tuple[str, str, str], tuple[Row, ...]]] = {
    ("", "v1", "io.k8s.api.core.v1"): (Row("ComponentStatus", "componentstatuses", "cs", False),),
    ("networking.k8s.io", "v1", "io.k8s.api.networking.v1"): (
        Row("IPAddress", "ipaddresses", "ip", False, columns=(at("ParentRef", "spec.parentRef.name"), AGE)),
        Row("ServiceCIDR", "servicecidrs", "", False, "status"),
    ),
    ("apiregistration.k8s.io", "v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"): (
        Row("APIService", "apiservices", "", False, "status", "api-extensions"),
    ),
}


def _build(group: str, version: str, prefix: str, row: Row) -> Kind:
    return Kind(
        group=group,
        version=version,
        kind=row.kind,
        plural=row.plural,
        schema=f"{prefix}.{row.kind}",
        namespaced=row.namespaced,
        singular=row.kind.lower(),
        short_names=tuple(row.short.split()),
        categories=tuple(row.categories.split()),
        subresources=tuple(row.sub.split()),
        columns=row.columns,
        generation_fields=(row.generation,) if row.generation else (),
    )


KINDS: Final = tuple(
    _build(group, version, prefix, row) for (group, version, prefix), rows in _TABLE.items() for row in rows
)
