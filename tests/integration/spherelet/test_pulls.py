"""Images from a real registry: policies, secrets, and what a user reads when a pull cannot work."""

import base64
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.image_registry import PASSWORD, USER, Registry, is_installed, running_registry

pytestmark = [pytest.mark.integration, pytest.mark.skipif(not is_installed(), reason="needs docker-registry")]
Object = dict[str, Any]

PUBLIC = "registry.example"
PRIVATE = "private.example"
SLEEP = ("sleep", "3600")


def part(name: str) -> Any:
    """A sibling that conftest.py has loaded."""
    return sys.modules[name]


@dataclass(frozen=True)
class World:
    """Two registries, and a containerd that knows them by the names above."""

    public: Registry
    private: Registry
    containerd: Path

    def push(self, name: str, *, private: bool = False, marker: str = "", **shape: Any) -> Any:
        """Push an image as ``name:1``; its environment tells ``MARKER``, which also makes it differ from others."""
        config = {"Env": ["PATH=/bin", f"MARKER={marker or name}"]}
        image = part("busybox_archive").image(config, **shape)
        (self.private if private else self.public).push(name, image.blobs, image.manifest, "1")
        return image


@pytest.fixture(scope="module")
def pulls(tmp_path_factory: pytest.TempPathFactory, conftest: Any) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("registries")
    with (
        running_registry(folder / "public") as public,
        running_registry(folder / "private", private=True) as private,
        conftest.running_containerd(
            {PUBLIC: f"http://{public.address}", PRIVATE: f"http://{private.address}"}
        ) as containerd,
    ):
        yield World(public, private, containerd / "containerd.sock")


@pytest.fixture
async def online(pulls: World, conftest: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A host that pulls, and tries again soon."""
    monkeypatch.setattr("spherelet.apply.image_backoff_base_s", 0.5)
    async with conftest.running_host(pulls.containerd, offline=False) as host:
        yield host
        for name in list(host.api.pods):
            host.api.delete(name, grace_s=0)
        await part("world").eventually(lambda: not host.loop.records)
        assert part("world").census(host.directory, host.config.cgroup_parent) == []


def run(host: Any, name: str, image: str, policy: str = "IfNotPresent", **spec: Any) -> None:
    container = {"image": image, "imagePullPolicy": policy}
    host.api.create(part("world").pod(name, *SLEEP, container=container, **spec))


def main(host: Any, name: str) -> Object:
    return next(iter(host.api.status(name).get("containerStatuses") or ()), {"state": {}})


async def ready(host: Any, name: str) -> Object:
    await part("world").eventually(lambda: main(host, name).get("ready"), what=f"{name} is ready: {main(host, name)}")
    return main(host, name)


async def backing_off(host: Any, name: str) -> str:
    """The message with which the pod waits for its image."""

    def message() -> str:
        waiting = main(host, name)["state"].get("waiting") or {}
        return str(waiting["message"]) if waiting.get("reason") == "ImagePullBackOff" else ""

    found: str = await part("world").eventually(message, timeout_s=30, what=f"{name} backs off: {main(host, name)}")
    return found


def messages(host: Any, name: str, reason: str) -> list[str]:
    return [e["message"] for e in host.api.events if e["involvedObject"]["name"] == name and e["reason"] == reason]


def secret(host: Any, name: str, user: str, password: str) -> list[Object]:
    """Store a docker registry Secret; what names it in a pod."""
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    text = json.dumps({"auths": {PRIVATE: entry}}).encode()
    host.api.secrets[name] = {"data": {".dockerconfigjson": base64.b64encode(text).decode()}}
    return [{"name": name}]


async def test_by_tag_and_by_digest(online: Any, pulls: World) -> None:
    image = pulls.push("good")
    run(online, "by-tag", f"{PUBLIC}/good:1")
    run(online, "by-digest", f"{PUBLIC}/good@{image.digest}")
    for name in ("by-tag", "by-digest"):
        status = await ready(online, name)
        assert status["imageID"] == f"{PUBLIC}/good@{image.digest}"
        await part("world").eventually(lambda n=name: messages(online, n, "Pulled"))
        assert messages(online, name, "Pulling") == [f'Pulling image "{status["image"]}"']
        assert messages(online, name, "Pulled")[0].startswith(f'Successfully pulled image "{status["image"]}" in')


async def test_always_takes_the_tags_present_image_and_if_not_present_the_old_one(online: Any, pulls: World) -> None:
    old = pulls.push("moving", marker="old")
    run(online, "first", f"{PUBLIC}/moving:1")
    await ready(online, "first")
    new = pulls.push("moving", marker="new")
    run(online, "second", f"{PUBLIC}/moving:1")
    run(online, "third", f"{PUBLIC}/moving:1", "Never")
    for name in ("second", "third"):
        assert (await ready(online, name))["imageID"].endswith(old.digest)
        await part("world").eventually(lambda n=name: messages(online, n, "Pulled"))
        assert "already present" in messages(online, name, "Pulled")[0]
    run(online, "fourth", f"{PUBLIC}/moving:1", "Always")
    assert (await ready(online, "fourth"))["imageID"].endswith(new.digest)
    assert (await ready(online, "first"))["imageID"].endswith(old.digest), "what runs keeps its image"


async def test_always_asks_the_registry_even_when_the_image_is_here(online: Any, pulls: World) -> None:
    pulls.push("always")
    run(online, "here", f"{PUBLIC}/always:1")
    await ready(online, "here")
    pulls.public.stop()
    try:
        run(online, "asks", f"{PUBLIC}/always:1", "Always")
        assert "cannot be reached" in await backing_off(online, "asks")
    finally:
        pulls.public.start()
    await ready(online, "asks")


async def test_never_pulls_nothing(online: Any, pulls: World) -> None:
    pulls.push("refused")
    run(online, "never", f"{PUBLIC}/refused:1", "Never")
    waiting = await part("world").eventually(lambda: main(online, "never")["state"].get("waiting", {}).get("message"))
    assert waiting == f'Container image "{PUBLIC}/refused:1" is not present with pull policy of Never'
    assert main(online, "never")["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    assert messages(online, "never", "Pulling") == []


@pytest.mark.parametrize("reference", ["known:absent", "unknown:1", f"known@sha256:{'0' * 64}"])
async def test_what_the_registry_does_not_have(online: Any, pulls: World, reference: str) -> None:
    pulls.push("known")
    image = f"{PUBLIC}/{reference}"
    run(online, "absent", image)
    message = await backing_off(online, "absent")
    assert message.startswith(f'Back-off pulling image "{image}": ErrImagePull: the registry has no such image; check')
    assert "code = NotFound" in message
    shown = [main(online, "absent")["state"]]
    for status in online.api.status_writes["absent"]:
        shown += [each["state"] for each in status["containerStatuses"]]
    assert "ErrImagePull" in [(each.get("waiting") or {}).get("reason") for each in shown]
    failed = await part("world").eventually(lambda: messages(online, "absent", "Failed")[1:])
    assert failed[0] == "Error: ErrImagePull"
    assert messages(online, "absent", "Failed")[0].startswith(f'Failed to pull image "{image}": the registry has no')
    await part("world").eventually(lambda: f'Back-off pulling image "{image}"' in messages(online, "absent", "BackOff"))


async def test_an_image_that_is_pushed_later_starts_the_pod(online: Any, pulls: World) -> None:
    run(online, "early", f"{PUBLIC}/later:1")
    await backing_off(online, "early")
    pulls.push("later")
    assert (await ready(online, "early"))["restartCount"] == 0


async def test_a_private_registry(online: Any, pulls: World) -> None:
    pulls.push("mine", private=True)
    run(online, "without", f"{PRIVATE}/mine:1")
    assert "the registry wants credentials; name a Secret" in await backing_off(online, "without")
    run(online, "wrong", f"{PRIVATE}/mine:1", imagePullSecrets=secret(online, "wrong", USER, "guessed"))
    message = await backing_off(online, "wrong")
    assert "refuses the credentials of the pod's imagePullSecrets; correct that Secret" in message
    assert "401 Unauthorized" in message
    assert "guessed" not in message + "".join(messages(online, "wrong", "Failed"))
    secrets = [{"name": "absent"}, *secret(online, "right", USER, PASSWORD)]
    run(online, "right", f"{PRIVATE}/mine:1", "Always", imagePullSecrets=secrets)
    await ready(online, "right")


async def test_a_lost_secret_is_told(online: Any, pulls: World) -> None:
    pulls.push("told", private=True)
    online.api.secrets["junk"] = {"data": {".dockerconfigjson": "!"}}
    run(online, "lost", f"{PRIVATE}/told:1", imagePullSecrets=[{"name": "absent"}, {"name": "junk"}])
    await backing_off(online, "lost")
    (message,) = await part("world").eventually(lambda: messages(online, "lost", "FailedToRetrieveImagePullSecret"))
    assert "absent (" in message
    assert "junk (no registry credentials in it; make it with `kubectl create secret docker-registry`)" in message
    secret(online, "absent", USER, PASSWORD)
    await ready(online, "lost")


async def test_a_registry_that_is_away(online: Any, pulls: World) -> None:
    pulls.push("away")
    pulls.public.stop()
    try:
        run(online, "away", f"{PUBLIC}/away:1")
        message = await backing_off(online, "away")
    finally:
        pulls.public.start()
    assert "the registry cannot be reached from this host; check" in message
    assert "connection refused" in message
    await ready(online, "away")


async def test_a_damaged_layer_is_refused_and_forgotten(online: Any, pulls: World) -> None:
    image = pulls.push("damaged", ballast=b"damaged")
    file = pulls.public.blob_file(image.layers[0])
    content = file.read_bytes()
    file.write_bytes(content[:1000] + bytes([content[1000] ^ 255]) + content[1001:])
    run(online, "damaged", f"{PUBLIC}/damaged:1")
    message = await backing_off(online, "damaged")
    assert "the registry sent other content than its manifest promises; push the image again" in message
    assert image.layers[0] in message
    file.write_bytes(content)
    await ready(online, "damaged")


async def test_an_unknown_kind_of_layer(online: Any, pulls: World) -> None:
    pulls.push("odd", ballast=b"odd", layer_type="application/x-unknown")
    run(online, "odd", f"{PUBLIC}/odd:1")
    message = await backing_off(online, "odd")
    assert "of an unknown kind; build it with layers of tar, gzip or zstd" in message
    assert "application/x-unknown" in message


async def test_a_pod_that_waits_for_its_image_can_be_deleted(online: Any, pulls: World) -> None:
    run(online, "hopeless", f"{PUBLIC}/hopeless:1")
    await backing_off(online, "hopeless")
    online.api.delete("hopeless")
    await part("world").eventually(lambda: "hopeless" not in online.api.pods)
    await part("world").eventually(lambda: not online.loop.records)
