"""Registry credentials from a pod's ``imagePullSecrets``."""

import base64
import binascii

import orjson

from common.errors import SphereError
from common.kube import KubeClient
from spherelet.model import Object
from spherelet.observed import Record

DOCKER_HUB = "docker.io"


class Credentials:
    """Looks credentials up when an image is about to be pulled; keeps none."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def of(self, record: Record, image: str) -> dict[str, str] | None:
        """``username`` and ``password`` for the registry of ``image``, or None. A missing secret is no error."""
        for each in record.view.spec.get("imagePullSecrets") or ():
            path = f"/api/v1/namespaces/{record.view.namespace}/secrets/{each.get('name')}"
            try:
                found = entry(await self._kube.get(path), registry(image))
            except SphereError:
                continue
            if found:
                return found
        return None


def registry(image: str) -> str:
    """Registry host of an image reference."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def entry(secret: Object, host: str) -> dict[str, str] | None:
    """Credentials for ``host`` in a ``kubernetes.io/dockerconfigjson`` or ``dockercfg`` Secret. Pure."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            auths = orjson.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
        else:
            auths = orjson.loads(base64.b64decode(data.get(".dockercfg", "e30=")))
    except (binascii.Error, orjson.JSONDecodeError):
        return None
    for name, value in auths.items():
        known = name.removeprefix("https://").removeprefix("http://").split("/")[0]
        if known == host or (host == DOCKER_HUB and known == "index.docker.io"):
            return _decode(value)
    return None


def _decode(value: Object) -> dict[str, str]:
    if "auth" in value and "username" not in value:
        name, _, password = base64.b64decode(value["auth"]).decode("utf-8", "replace").partition(":")
        return {"username": name, "password": password}
    return {key: str(value[key]) for key in ("username", "password") if key in value}
