"""OCI runtime spec (``config.json``) of one container. Pure: everything it needs is an argument."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import Terminal
from spherelet.model import ContainerView, Image, PodView
from spherelet.runtime import cgroups, security
from spherelet.runtime.seccomp import profile
from spherelet.runtime.users import User
from spherelet.volumes.expansion import expand

OCI_VERSION = "1.0.2"
STDIN_ONCE = "io.kubernetes.container.stdinOnce"
"""Annotation: whether the first attached client takes the container's standard input with it when it leaves."""
_CONTENT_KINDS = frozenset({"configMap", "secret", "downwardAPI", "projected"})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the spec of a container is made of, besides the pod."""

    container_id: str
    image: Image
    user: User
    env: Sequence[tuple[str, str]]
    hostname: str
    pod_dir: Path
    directory: Path
    namespaces: Mapping[str, Path]
    """Namespaces to join by kind (``net``, ``ipc``, ``uts``, ``pid``); absent = the host's, but for ``pid`` its own."""
    volumes: Mapping[str, Path]
    subpaths: Mapping[int, Path]
    """Sources of volumeMounts with a subPath, by index."""
    cgroup: str
    cgroup_version: int
    capabilities: frozenset[str]
    """What the kernel lets us grant."""
    oom_score_adj: int
    devices: Sequence[dict[str, Any]] = field(default=())


def build(pod: PodView, container: ContainerView, given: Inputs) -> dict[str, Any]:
    """The spec. Raises ``Terminal`` with the CreateContainerConfigError text for an impossible combination."""
    context = container.spec.get("securityContext") or {}
    privileged = bool(context.get("privileged"))
    linux: dict[str, Any] = {
        "namespaces": _namespaces(pod, given),
        "cgroupsPath": given.cgroup,
        "resources": resources(container.spec.get("resources") or {}, given.cgroup_version, privileged=privileged),
        "devices": list(given.devices) if privileged else [],
    }
    if not privileged:
        if context.get("procMount") != "Unmasked":
            linux["maskedPaths"] = list(security.MASKED_PATHS)
            linux["readonlyPaths"] = list(security.READONLY_PATHS)
        filtered = profile(_seccomp_type(pod, context), set(_capabilities(context, given, privileged=False)))
        if filtered is not None:
            linux["seccomp"] = filtered
    return {
        "ociVersion": OCI_VERSION,
        "process": process(pod, container, given),
        "root": {"path": "rootfs", "readonly": bool(context.get("readOnlyRootFilesystem"))},
        "mounts": [*_system_mounts(pod, given, privileged=privileged), *_pod_mounts(pod, container, given)],
        "linux": linux,
        "annotations": {
            "io.kubernetes.pod.uid": pod.uid,
            "io.kubernetes.pod.name": pod.name,
            "io.kubernetes.pod.namespace": pod.namespace,
            "io.kubernetes.container.name": container.name,
            STDIN_ONCE: "true" if container.spec.get("stdinOnce") else "false",
        },
    }


def process(pod: PodView, container: ContainerView, given: Inputs) -> dict[str, Any]:
    """The ``process`` part; exec reuses it with other ``args``."""
    context = container.spec.get("securityContext") or {}
    privileged = bool(context.get("privileged"))
    granted = list(_capabilities(context, given, privileged=privileged))
    # A user other than root gets no effective capabilities by execve(2); ambient ones are never given.
    effective = granted if given.user.uid == 0 else []
    config = given.image.config
    return {
        "terminal": bool(container.spec.get("tty")),
        "user": {"uid": given.user.uid, "gid": given.user.gid, "additionalGids": list(given.user.groups)},
        "args": arguments(container.spec, config, dict(given.env)),
        "env": [f"{name}={value}" for name, value in environment(config, given)],
        "cwd": container.spec.get("workingDir") or config.get("WorkingDir") or "/",
        "capabilities": {
            "bounding": granted,
            "effective": effective,
            "permitted": effective,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": context.get("allowPrivilegeEscalation") is False and not privileged,
        "oomScoreAdj": given.oom_score_adj,
    }


def arguments(container: Mapping[str, Any], image: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """``command``/``args`` over the image's ``Entrypoint``/``Cmd``, as Kubernetes combines them.

    ``$(NAME)`` stands for a variable of the pod's own ``env``; what the image says is taken as it is.
    """
    command, args = ([expand(str(each), env) for each in container.get(key) or ()] for key in ("command", "args"))
    result = [*command, *args] if command else [*(image.get("Entrypoint") or ()), *(args or image.get("Cmd") or ())]
    if not result:
        raise Terminal("no command specified: set command in the container or Entrypoint or Cmd in the image")
    return [str(each) for each in result]


def environment(image: Mapping[str, Any], given: Inputs) -> list[tuple[str, str]]:
    """The image's variables, overridden by the pod's; PATH, HOSTNAME and HOME are always there."""
    merged: dict[str, str] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    merged["HOSTNAME"] = given.hostname
    for line in image.get("Env") or ():
        name, _, value = line.partition("=")
        merged[name] = value
    merged.update(given.env)
    merged.setdefault("HOME", given.user.home)
    return list(merged.items())


def resources(wanted: Mapping[str, Any], version: int, *, privileged: bool) -> dict[str, Any]:
    """``linux.resources`` of a container's ``resources``. Only what is limited is set."""
    limits, requests = wanted.get("limits") or {}, wanted.get("requests") or {}
    cpu: dict[str, int] = {"shares": cgroups.shares(cgroups.amount(requests.get("cpu", limits.get("cpu", 0))))}
    if cgroups.amount(limits.get("cpu", 0)) > 0:  # 0 is no limit
        cpu |= {"quota": cgroups.quota_us(cgroups.amount(limits["cpu"])), "period": cgroups.CPU_PERIOD_US}
    result: dict[str, Any] = {"cpu": cpu, "devices": [{"allow": privileged, "access": "rwm"}]}
    if cgroups.amount(limits.get("memory", 0)) > 0:
        result["memory"] = {"limit": int(cgroups.amount(limits["memory"]))}
        if version == 2:
            result["unified"] = {"memory.oom.group": "1"}
    return result


def oom_score(qos_class: str, memory_request: float, memory_total: float, floor: int) -> int:
    """Kubernetes' oom_score_adj by QoS class, but never below ``floor``: lowering needs CAP_SYS_RESOURCE."""
    if qos_class == "Guaranteed":
        wanted = -997
    elif qos_class == "BestEffort":
        wanted = 1000
    else:
        wanted = min(999, max(3, 1000 - int(1000 * memory_request / max(1.0, memory_total))))
    return max(floor, wanted)


def _capabilities(context: Mapping[str, Any], given: Inputs, *, privileged: bool) -> tuple[str, ...]:
    return security.capabilities(context.get("capabilities") or {}, given.capabilities, privileged=privileged)


def _seccomp_type(pod: PodView, context: Mapping[str, Any]) -> str:
    own = context.get("seccompProfile") or (pod.spec.get("securityContext") or {}).get("seccompProfile") or {}
    return str(own.get("type", "Unconfined"))


def _namespaces(pod: PodView, given: Inputs) -> list[dict[str, str]]:
    names = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    result: list[dict[str, str]] = [{"type": "mount"}]
    if not pod.spec.get("hostPID") and "pid" not in given.namespaces:
        result.append({"type": "pid"})
    if given.cgroup_version == 2:
        result.append({"type": "cgroup"})
    result += [{"type": names[kind], "path": str(path)} for kind, path in sorted(given.namespaces.items())]
    return result


def _system_mounts(pod: PodView, given: Inputs, *, privileged: bool) -> list[dict[str, Any]]:
    readonly = [] if privileged else ["ro"]
    mounts = [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", *readonly]),
        _mount("/dev/shm", str(given.pod_dir / "shm"), "bind", ["rbind", "nosuid", "nodev", "noexec"]),  # noqa: S108
    ]
    if pod.host_network:  # sysfs shows the network namespace that it was mounted in: the host's must be bound
        mounts.insert(3, _mount("/sys", "/sys", "bind", ["rbind", "nosuid", "noexec", "nodev", *readonly]))
        mounts = [each for each in mounts if each["destination"] != "/sys/fs/cgroup"]
    else:
        mounts.insert(3, _mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", *readonly]))
    return mounts


def _pod_mounts(pod: PodView, container: ContainerView, given: Inputs) -> list[dict[str, Any]]:
    wanted = {str(PurePosixPath(each["mountPath"])) for each in container.spec.get("volumeMounts") or ()}
    result = [
        _mount(f"/etc/{name}", str(given.pod_dir / "etc" / name), "bind", ["rbind", "rprivate"])
        for name in ("hosts", "hostname", "resolv.conf")
        if f"/etc/{name}" not in wanted
    ]
    message_path = container.spec.get("terminationMessagePath") or "/dev/termination-log"
    if message_path not in wanted:
        result.append(_mount(message_path, str(given.directory / "termination-log"), "bind", ["rbind", "rprivate"]))
    volumes = {each["name"]: each for each in pod.spec.get("volumes") or ()}
    for index, each in enumerate(container.spec.get("volumeMounts") or ()):
        result.append(_volume_mount(index, each, given, volumes.get(each.get("name")) or {}))
    # Parents before children, whatever order the user wrote; the sort is stable.
    return sorted(result, key=lambda mount: len(PurePosixPath(mount["destination"]).parts))


def _volume_mount(index: int, wanted: Mapping[str, Any], given: Inputs, volume: Mapping[str, Any]) -> dict[str, Any]:
    source = given.subpaths.get(index) or given.volumes.get(wanted["name"])
    if source is None:
        raise Terminal(f'volumeMount "{wanted["name"]}" names no volume of the pod')
    propagation = {"HostToContainer": "rslave", "Bidirectional": "rshared"}.get(
        wanted.get("mountPropagation") or "", "rprivate"
    )
    # What comes from the API is read-only whatever the mount says: a write would be lost with the next update.
    content = not _CONTENT_KINDS.isdisjoint(volume)
    claimed = volume.get("persistentVolumeClaim") or {}
    access = ["ro"] if content or claimed.get("readOnly") or wanted.get("readOnly") else ["rw"]
    if "image" in volume:
        access = ["ro", "noexec", "nosuid", "nodev"]
    return _mount(wanted["mountPath"], str(source), "bind", ["rbind", propagation, *access])


def _mount(destination: str, source: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
