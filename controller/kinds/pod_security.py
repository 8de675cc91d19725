"""Pod Security Standards: what in a pod spec goes beyond ``baseline`` or ``restricted``. Pure.

Spec: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and its policy library
``k8s.io/pod-security-admission/policy``, in its newest version.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from controller.kinds.columns import dig
from controller.kinds.kind import Object

LEVELS: Final = ("privileged", "baseline", "restricted")
_CAPABILITIES: Final = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
        *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
_SYSCTLS: Final = frozenset(
    (
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    )
)
_SELINUX: Final = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))
_VOLUMES: Final = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_HOSTS_PROBED: Final = ("livenessProbe", "readinessProbe", "startupProbe")
Found = Iterable[str]
"""Violations of one control, empty when it holds."""


def violations(level: str, metadata: Mapping[str, Any], spec: Object) -> list[str]:
    """Every violated control of a level with what violates it; empty for ``privileged``."""
    if level not in ("baseline", "restricted"):
        return []
    checks: list[Callable[[Mapping[str, Any], Object], Found]] = list(_BASELINE)
    if level == "restricted":
        checks = [check for check in checks if check is not _capabilities and check is not _host_path] + list(
            _RESTRICTED
        )
    return [text for check in checks for text in check(metadata, spec)]


def _containers(spec: Object) -> list[Object]:
    return [each for key in ("initContainers", "containers", "ephemeralContainers") for each in spec.get(key) or ()]


def _names(found: Iterable[Object]) -> str:
    listed = [f'"{each.get("name")}"' for each in found]
    return f"container{'s' if len(listed) > 1 else ''} {', '.join(listed)}"


def _where(spec: Object, wrong: Callable[[Object], bool]) -> list[Object]:
    return [each for each in _containers(spec) if wrong(each.get("securityContext") or {})]


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{each}"' for each in sorted(set(values)))


def _host_namespaces(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return [f"host namespaces ({', '.join(found)})"] if found else []


def _privileged(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = _where(spec, lambda context: bool(context.get("privileged")))
    return [f"privileged ({_names(found)} must not set securityContext.privileged=true)"] if found else []


def _capabilities(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = _where(spec, lambda context: bool(set(dig(context, "capabilities.add", [])) - _CAPABILITIES))
    if not found:
        return []
    extra = {cap for each in found for cap in dig(each, "securityContext.capabilities.add", [])} - _CAPABILITIES
    return [
        f"non-default capabilities ({_names(found)} must not include {_quoted(extra)} in "
        "securityContext.capabilities.add)"
    ]


def _host_path(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = [str(each.get("name")) for each in spec.get("volumes") or () if each.get("hostPath") is not None]
    return [f"hostPath volumes (volume{'s' if len(found) > 1 else ''} {_quoted(found)})"] if found else []


def _host_ports(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = [each for each in _containers(spec) if any(port.get("hostPort") for port in each.get("ports") or ())]
    ports = sorted({port["hostPort"] for each in found for port in each.get("ports") or () if port.get("hostPort")})
    return (
        [f"hostPort ({_names(found)} uses hostPort{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))})"]
        if found
        else []
    )


def _probe_hosts(metadata: Mapping[str, Any], spec: Object) -> Found:
    def handlers(container: Object) -> Iterable[Object]:
        yield from (container[key] for key in _HOSTS_PROBED if container.get(key))
        yield from (each for each in (container.get("lifecycle") or {}).values() if isinstance(each, dict))

    def reaches(container: Object) -> bool:
        return any(
            dig(each, f"{kind}.host") not in (None, "", "127.0.0.1", "::1", "localhost")
            for each in handlers(container)
            for kind in ("httpGet", "tcpSocket")
        )

    found = [each for each in _containers(spec) if reaches(each)]
    return [f"probe or lifecycle host ({_names(found)} must not set host)"] if found else []


def _apparmor(metadata: Mapping[str, Any], spec: Object) -> Found:
    bad = [
        f'{key}="{value}"'
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    ]
    contexts = [spec.get("securityContext") or {}, *((each.get("securityContext") or {}) for each in _containers(spec))]
    loose = any(dig(context, "appArmorProfile.type") == "Unconfined" for context in contexts)
    return [f"forbidden AppArmor profile ({', '.join(bad) or 'Unconfined'})"] if bad or loose else []


def _selinux(metadata: Mapping[str, Any], spec: Object) -> Found:
    contexts = [spec.get("securityContext") or {}, *((each.get("securityContext") or {}) for each in _containers(spec))]
    for context in contexts:
        options = context.get("seLinuxOptions") or {}
        if (options.get("type") or "") not in _SELINUX or options.get("user") or options.get("role"):
            return ["seLinuxOptions (forbidden type, user or role is set)"]
    return []


def _proc_mount(metadata: Mapping[str, Any], spec: Object) -> Found:
    if spec.get("hostUsers") is False:
        return []
    found = _where(spec, lambda context: (context.get("procMount") or "Default") != "Default")
    return [f'procMount ({_names(found)} must not set securityContext.procMount to "Unmasked")'] if found else []


def _seccomp_unconfined(metadata: Mapping[str, Any], spec: Object) -> Found:
    loose = _where(spec, lambda context: dig(context, "seccompProfile.type") == "Unconfined")
    who = ["pod"] if dig(spec, "securityContext.seccompProfile.type") == "Unconfined" else []
    who += [_names(loose)] if loose else []
    return (
        [f'seccompProfile ({" and ".join(who)} must not set securityContext.seccompProfile.type to "Unconfined")']
        if who
        else []
    )


def _sysctls(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = {str(each.get("name")) for each in dig(spec, "securityContext.sysctls", [])} - _SYSCTLS
    return [f"forbidden sysctls ({', '.join(sorted(found))})"] if found else []


def _escalation(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = _where(spec, lambda context: context.get("allowPrivilegeEscalation") is not False)
    if not found:
        return []
    return [
        f"allowPrivilegeEscalation != false ({_names(found)} must set securityContext.allowPrivilegeEscalation=false)"
    ]


def _no_capabilities(metadata: Mapping[str, Any], spec: Object) -> Found:
    keeps = _where(spec, lambda context: "ALL" not in dig(context, "capabilities.drop", []))
    adds = _where(spec, lambda context: bool(set(dig(context, "capabilities.add", [])) - {"NET_BIND_SERVICE"}))
    parts = [f'{_names(keeps)} must set securityContext.capabilities.drop=["ALL"]'] if keeps else []
    if adds:
        extra = {cap for each in adds for cap in dig(each, "securityContext.capabilities.add", [])} - {
            "NET_BIND_SERVICE"
        }
        parts.append(f"{_names(adds)} must not include {_quoted(extra)} in securityContext.capabilities.add")
    return [f"unrestricted capabilities ({'; '.join(parts)})"] if parts else []


def _volume_types(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = [
        (str(each.get("name")), kind)
        for each in spec.get("volumes") or ()
        for kind in sorted(set(each) - {"name"} - _VOLUMES)
    ]
    if not found:
        return []
    names, kinds = _quoted(name for name, _ in found), _quoted(kind for _, kind in found)
    return [
        f"restricted volume types (volume{'s' if len(found) > 1 else ''} {names} uses restricted volume type {kinds})"
    ]


def _non_root(metadata: Mapping[str, Any], spec: Object) -> Found:
    by_pod = dig(spec, "securityContext.runAsNonRoot")
    wrong = _where(spec, lambda context: context.get("runAsNonRoot") is False)
    silent = _where(spec, lambda context: context.get("runAsNonRoot") is None) if by_pod is not True else []
    found = [*wrong, *silent]
    if not found and by_pod is not False:
        return []
    who = f"pod or {_names(found)}" if found else "pod"
    return [f"runAsNonRoot != true ({who} must set securityContext.runAsNonRoot=true)"]


def _root_user(metadata: Mapping[str, Any], spec: Object) -> Found:
    found = _where(spec, lambda context: context.get("runAsUser") == 0)
    who = ["pod"] if dig(spec, "securityContext.runAsUser") == 0 else []
    who += [_names(found)] if found else []
    return [f"runAsUser=0 ({' and '.join(who)} must not set runAsUser=0)"] if who else []


def _seccomp_set(metadata: Mapping[str, Any], spec: Object) -> Found:
    good = ("RuntimeDefault", "Localhost")
    by_pod = dig(spec, "securityContext.seccompProfile.type") in good
    found = _where(
        spec, lambda context: (dig(context, "seccompProfile.type") or (good[0] if by_pod else "")) not in good
    )
    if not found:
        return []
    return [
        f"seccompProfile (pod or {_names(found)} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost")'
    ]


_BASELINE: Final = (
    _host_namespaces,
    _privileged,
    _capabilities,
    _host_path,
    _host_ports,
    _probe_hosts,
    _apparmor,
    _selinux,
    _proc_mount,
    _seccomp_unconfined,
    _sysctls,
)
_RESTRICTED: Final = (_escalation, _no_capabilities, _volume_types, _non_root, _root_user, _seccomp_set)
