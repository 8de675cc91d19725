"""Names that cross process borders. NewTypes keep them from being mixed up."""

from typing import NewType

HostName = NewType("HostName", str)
Namespace = NewType("Namespace", str)
PodUid = NewType("PodUid", str)
Revision = NewType("Revision", int)
"""An etcd revision: the one clock of desired state."""
Vni = NewType("Vni", int)
"""VXLAN network identifier of a segment, 1 .. 2**24-1."""
