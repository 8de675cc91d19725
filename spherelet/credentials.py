"""Registry credentials from a pod's ``imagePullSecrets``."""

import base64
from typing import Protocol

import orjson

from common.errors import SphereError
from common.kube import KubeClient
from spherelet.model import Object, PodView
from spherelet.observed import Record

DOCKER_HUB = "docker.io"


class Tell(Protocol):
    """Writes an event about a pod."""

    def __call__(
        self, pod: PodView, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None: ...


class Credentials:
    """Looks credentials up when an image is about to be pulled; keeps none. ``tell`` as in ``Events``."""

    def __init__(self, kube: KubeClient, tell: Tell) -> None:
        self._kube = kube
        self._tell = tell

    async def of(self, record: Record, image: str) -> dict[str, str] | None:
        """``username`` and ``password`` for the registry of ``image``, or None.

        A Secret that is missing or says nothing is no error, because the image may be public; an event tells.
        """
        lost = []
        for each in record.view.spec.get("imagePullSecrets") or ():
            name = str(each.get("name"))
            try:
                secret = await self._kube.get(f"/api/v1/namespaces/{record.view.namespace}/secrets/{name}")
                found = entry(secret, registry(image))
            except (SphereError, ValueError) as err:
                lost.append(f"{name} ({err})")
                continue
            if found:
                return found
        if lost:
            text = f"Unable to use some image pull secrets: {', '.join(lost)}; pulling the image may not succeed"
            self._tell(record.view, "FailedToRetrieveImagePullSecret", text, warning=True)
        return None


def registry(image: str) -> str:
    """Registry host of an image reference."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def entry(secret: Object, host: str) -> dict[str, str] | None:
    """Credentials for ``host`` in a Secret of type ``kubernetes.io/dockerconfigjson`` or ``dockercfg``. Pure.

    Raises ``ValueError`` with the cure when the Secret is not one of these.
    """
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            auths = orjson.loads(base64.b64decode(data[".dockerconfigjson"]))["auths"]
        else:
            auths = orjson.loads(base64.b64decode(data[".dockercfg"]))
        for name, value in auths.items():
            known = name.removeprefix("https://").removeprefix("http://").split("/")[0]
            if known == host or (host == DOCKER_HUB and known == "index.docker.io"):
                return _decode(value)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ValueError("no registry credentials in it; make it with `kubectl create secret docker-registry`") from err
    return None


def _decode(value: Object) -> dict[str, str]:
    if "username" in value:
        return {"username": str(value["username"]), "password": str(value["password"])}
    name, colon, password = base64.b64decode(value["auth"], validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no colon")
    return {"username": name, "password": password}
