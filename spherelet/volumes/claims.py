"""Persistent volumes: which directory of this host a claim of a pod is.

A volume that was made for its claim (by ``sphere.io/local``) names no path of this host: it is the directory of its
name below ``volumes_dir``. Volumes of an admin (``local``, ``hostPath``) use their path as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from common.errors import Retryable, Terminal

Object = dict[str, Any]
PROVISIONER: Final = "sphere.io/local"
HOST_LABEL: Final = "sphere.io/host"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
_HOSTNAME: Final = "kubernetes.io/hostname"


class Api(Protocol):
    """What is needed of ``common.kube.KubeClient``."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object: ...


@dataclass(frozen=True, slots=True)
class Directory:
    """Where a volume is on this host."""

    path: Path
    kind: str
    """``made`` on first use, ``local`` (must be there), or ``hostPath``."""
    host_path_type: str = ""


class Claims:
    """Asks the API once per pod and claim; what is bound stays bound."""

    def __init__(self, api: Api, host: str, volumes_dir: Path) -> None:
        self._api = api
        self._host = host
        self._volumes_dir = volumes_dir

    async def find(self, pod: Object, volume: Object) -> Directory:
        """The directory of a pod's volume that is a claim. Raises ``Retryable`` until it is bound, ``Terminal``."""
        namespace, name = str(pod["metadata"].get("namespace", "default")), claim_name(pod, volume)
        where = f"error processing PVC {namespace}/{name}"
        claim = await self._read(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}", where)
        if "ephemeral" in volume and not _is_made_for(claim, pod):
            raise Retryable(f"{where}: PVC was not created for the pod (pod is not owner); delete that claim")
        if "deletionTimestamp" in claim["metadata"]:
            raise Retryable(f"{where}: PVC is being deleted")
        bound = str(claim["spec"].get("volumeName") or "")
        if not bound:
            raise Retryable(f"{where}: PVC is not bound")
        found = await self._read(f"/api/v1/persistentvolumes/{bound}", where)
        if (found["spec"].get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
            raise Retryable(f'{where}: persistentvolume "{bound}" is not bound to it')
        return directory_of(found, self._host, self._volumes_dir)

    async def _read(self, path: str, where: str) -> Object:
        try:
            return await self._api.get(path)
        except Retryable as err:
            raise Retryable(f"{where}: failed to fetch from API server: {err}") from err


def claim_name(pod: Object, volume: Object) -> str:
    """Name of the claim that a volume of the pod is."""
    source = volume.get("persistentVolumeClaim")
    return str(source["claimName"]) if source is not None else f"{pod['metadata']['name']}-{volume['name']}"


def is_provisioned(volume: Object) -> bool:
    """Whether the volume's directory is ours to make and to remove."""
    return (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER


def directory_below(volumes_dir: Path, name: str) -> Path:
    """Directory of a provisioned volume. Raises ``Terminal`` for a name that would lead elsewhere."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise Terminal(f"{name!r} cannot be the name of a volume")
    return volumes_dir / name


def directory_of(volume: Object, host: str, volumes_dir: Path) -> Directory:
    """Where a volume is. Raises ``Terminal`` when it is not on this host, or of a kind that no host has."""
    name, spec = str(volume["metadata"]["name"]), volume["spec"]
    if not _reaches(spec, host):
        raise Terminal(f'node affinity check failed for volume "{name}": no matching NodeSelectorTerms for {host}')
    if (spec.get("volumeMode") or "Filesystem") != "Filesystem":
        raise Terminal(f'volumeMode {spec["volumeMode"]} of volume "{name}" is not supported; use Filesystem')
    if is_provisioned(volume):
        return Directory(directory_below(volumes_dir, name), "made")
    if "local" in spec:
        return Directory(Path(spec["local"]["path"]), "local")
    if "hostPath" in spec:
        return Directory(Path(spec["hostPath"]["path"]), "hostPath", str(spec["hostPath"].get("type") or ""))
    raise Terminal(f'the kind of persistent volume "{name}" is not supported; use local or hostPath')


def _reaches(spec: Object, host: str) -> bool:
    """By the host's name only: everything else is the scheduler's to judge."""
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    return not terms or any(
        all(
            host in (each.get("values") or ())
            for each in term.get("matchExpressions") or ()
            if each.get("key") == _HOSTNAME and each.get("operator") == "In"
        )
        for term in terms
    )


def _is_made_for(claim: Object, pod: Object) -> bool:
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(each.get("controller") and each.get("uid") == pod["metadata"]["uid"] for each in owners)
