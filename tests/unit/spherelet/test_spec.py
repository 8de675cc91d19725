"""OCI specs, users and capabilities."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import Terminal
from spherelet.model import ContainerView, Image, PodView, Role
from spherelet.runtime import cgroups, security, spec
from spherelet.runtime.users import User, resolve

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nextra:x:2000:app\n"


def inputs(**fields: Any) -> spec.Inputs:
    values: dict[str, Any] = {
        "container_id": "c",
        "image": Image("i", "r", ("/l",), {"Entrypoint": ["/entry"], "Cmd": ["cmd"], "Env": ["A=1", "B=2"]}),
        "user": User(0, 0, (0,), "/root"),
        "env": [("B", "3")],
        "hostname": "p",
        "pod_dir": Path("/pod"),
        "directory": Path("/pod/c"),
        "namespaces": {"net": Path("/ns/net")},
        "volumes": {"v": Path("/vol")},
        "subpaths": {},
        "cgroup": "/sphere/c",
        "cgroup_version": 1,
        "capabilities": frozenset(security.ALL_CAPABILITIES),
        "oom_score_adj": 1000,
    }
    return spec.Inputs(**{**values, **fields})


def build(container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"metadata": {"uid": "u", "name": "p", "namespace": "n"}, "spec": {"containers": [], **(pod or {})}}
    view = ContainerView(Role.MAIN, {"name": "main", "image": "i", **(container or {})})
    return spec.build(PodView(body), view, inputs(**fields))


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ["/entry", "cmd"]),
        ({"args": ["x"]}, ["/entry", "x"]),
        ({"command": ["/c"]}, ["/c"]),
        ({"command": ["/c"], "args": ["x"]}, ["/c", "x"]),
    ],
)
def test_command_and_args(container: dict[str, Any], expected: list[str]) -> None:
    assert build(container)["process"]["args"] == expected


def test_variables_of_the_pod_are_expanded_in_what_the_pod_says() -> None:
    container = {"command": ["/$(B)", "$$(B)", "$(A)"], "args": ["$(NONE)"]}
    assert build(container)["process"]["args"] == ["/3", "$(B)", "$(A)", "$(NONE)"], "A is the image's own"
    image = Image("i", "r", ("/l",), {"Entrypoint": ["/$(B)"]})
    assert build(image=image)["process"]["args"] == ["/$(B)"]


def test_the_process_namespace_is_ones_own_or_joined_or_the_hosts() -> None:
    def found(pod: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, str]]:
        namespaces = build(pod=pod, **fields)["linux"]["namespaces"]
        return [each for each in namespaces if each["type"] == "pid"]

    assert found() == [{"type": "pid"}]
    assert found({"hostPID": True}) == []
    joined = {"pid": Path("/proc/5/ns/pid")}
    assert found(namespaces=joined) == [{"type": "pid", "path": "/proc/5/ns/pid"}]


def test_the_pods_variables_win() -> None:
    env = dict(line.split("=", 1) for line in build()["process"]["env"])
    assert (env["A"], env["B"], env["HOSTNAME"], env["HOME"]) == ("1", "3", "p", "/root")


def test_parents_are_mounted_before_children() -> None:
    mounts = [{"name": "v", "mountPath": "/a/b/c"}, {"name": "v", "mountPath": "/a", "readOnly": True}]
    found = [each for each in build({"volumeMounts": mounts})["mounts"] if each["source"] == "/vol"]
    assert [each["destination"] for each in found] == ["/a", "/a/b/c"]
    assert "ro" in found[0]["options"]


def test_a_users_own_mount_replaces_ours() -> None:
    mounts = [{"name": "v", "mountPath": "/etc/hosts"}]
    found = [
        each["source"] for each in build({"volumeMounts": mounts})["mounts"] if each["destination"] == "/etc/hosts"
    ]
    assert found == ["/vol"]


def test_isolation_by_default_and_when_privileged() -> None:
    plain = build()
    assert "/proc/kcore" in plain["linux"]["maskedPaths"]
    assert "CAP_SYS_ADMIN" not in plain["process"]["capabilities"]["bounding"]
    privileged = build({"securityContext": {"privileged": True}})
    assert "maskedPaths" not in privileged["linux"]
    assert "CAP_SYS_ADMIN" in privileged["process"]["capabilities"]["bounding"]


def test_a_seccomp_profile_is_in_force_or_refused_never_left_out() -> None:
    def seccomp(kind: str, **context: Any) -> dict[str, Any]:
        found = build({"securityContext": {"seccompProfile": {"type": kind}, **context}})["linux"].get("seccomp", {})
        return {name: rule for rule in found.get("syscalls", ()) for name in rule["names"]}

    assert seccomp("Unconfined") == {}
    confined = seccomp("RuntimeDefault")
    assert {"unshare", "mount", "clone", "io_uring_setup", "keyctl", "syslog"} <= confined.keys()
    assert confined["clone3"]["errnoRet"] == 38, "libc must fall back on clone"
    allowed = seccomp("RuntimeDefault", capabilities={"add": ["SYS_ADMIN"]})
    assert {"unshare", "mount", "clone", "clone3"}.isdisjoint(allowed)
    with pytest.raises(Terminal, match="Localhost is not supported"):
        seccomp("Localhost", localhostProfile="x.json")


def test_capabilities_never_exceed_what_the_host_can_give() -> None:
    here = frozenset(security.ALL_CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    assert "CAP_SYS_RESOURCE" not in security.capabilities({}, here, privileged=True)
    assert security.capabilities({"drop": ["ALL"], "add": ["NET_ADMIN"]}, here, privileged=False) == ("CAP_NET_ADMIN",)
    assert security.available("CapBnd:\t000001fffeffffff") == here


def test_limits() -> None:
    found = spec.resources({"limits": {"cpu": "500m", "memory": "64Mi"}}, 1, privileged=False)
    assert found["cpu"] == {"shares": 512, "quota": 50000, "period": 100000}
    assert found["memory"] == {"limit": 64 << 20}


def test_a_limit_of_zero_is_no_limit() -> None:
    found = spec.resources({"limits": {"cpu": "0", "memory": "0"}}, 1, privileged=False)
    assert "quota" not in found["cpu"]
    assert "memory" not in found
    assert cgroups.pod_limits({"containers": [{"resources": {"limits": {"cpu": "0", "memory": "1Mi"}}}]}) == {
        "requests_cpu": 0.0,
        "limits_memory": 1 << 20,
    }


def test_oom_score_never_goes_below_the_floor() -> None:
    assert spec.oom_score("Guaranteed", 0, 1, floor=0) == 0
    assert spec.oom_score("BestEffort", 0, 1, floor=0) == 1000
    assert spec.oom_score("Burstable", 500, 1000, floor=0) == 500


@pytest.mark.parametrize(
    ("image", "context", "expected"),
    [
        ("", {}, User(0, 0, (0,), "/root")),
        ("app", {}, User(1000, 1001, (1001, 2000), "/home/app")),
        ("1000", {}, User(1000, 1001, (1001, 2000), "/home/app")),
        ("1000:5", {}, User(1000, 5, (5, 2000), "/home/app")),
        ("app", {"runAsUser": 7, "runAsGroup": 8}, User(7, 8, (8,), "/")),
        ("app:extra", {}, User(1000, 2000, (2000,), "/home/app")),
    ],
)
def test_users(image: str, context: dict[str, Any], expected: User) -> None:
    assert resolve(image, {}, context, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("image", "context", "text"),
    [
        ("nobody", {}, "no matching entries in passwd"),
        ("", {"runAsNonRoot": True}, "image will run as root"),
        ("app", {"runAsNonRoot": True}, "non-numeric user"),
        ("", {"runAsNonRoot": True, "runAsUser": 0}, "breaks non-root policy"),
    ],
)
def test_impossible_users_say_why(image: str, context: dict[str, Any], text: str) -> None:
    with pytest.raises(Terminal, match=text):
        resolve(image, {}, context, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos(resources: dict[str, Any], expected: str) -> None:
    assert cgroups.qos({"containers": [{"resources": resources}]}) == expected


def test_an_image_volume_is_looked_at_only() -> None:
    pod = {"volumes": [{"name": "v", "image": {"reference": "r"}}]}
    found = build({"volumeMounts": [{"name": "v", "mountPath": "/art"}]}, pod)["mounts"]
    (mount,) = [each for each in found if each["destination"] == "/art"]
    assert {"ro", "noexec"} <= set(mount["options"])


def test_a_claim_may_be_read_only_for_the_whole_pod() -> None:
    pod = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}]}
    found = build({"volumeMounts": [{"name": "v", "mountPath": "/data"}]}, pod)["mounts"]
    assert [each["options"][-1] for each in found if each["destination"] == "/data"] == ["ro"]


@pytest.mark.parametrize(
    ("milli", "quota", "shares"), [(1, 1000, 2), (9, 1000, 9), (29, 2900, 29), (71, 7100, 72), (1250, 125000, 1280)]
)
def test_cpu_amounts_lose_nothing_to_floats(milli: int, quota: int, shares: int) -> None:
    cores = cgroups.amount(f"{milli}m")
    assert (cgroups.quota_us(cores), cgroups.shares(cores)) == (quota, shares)
