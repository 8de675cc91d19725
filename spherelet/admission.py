"""Whether this host may run a pod at all. Pure. What is refused has failed for good, before anything was made for it.

Only what is the host's own business is judged here: system calls and parameters that would reach past the pod.
"""

from typing import Final

from spherelet.model import PodView

SAFE_SYSCTLS: Final = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)
"""Those that Kubernetes calls safe: each belongs to a namespace, and no pod can disturb another by it. Any other name
could be the whole host's (``kernel.core_pattern`` runs a program as its root)."""


def refusal(pod: PodView) -> tuple[str, str] | None:
    """(reason, message) in Kubernetes' words if the pod must not run here, else None."""
    system = str((pod.spec.get("os") or {}).get("name") or "linux")
    if system != "linux":
        return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
    context = pod.spec.get("securityContext") or {}
    for each in context.get("sysctls") or ():
        problem = _sysctl_problem(str(each["name"]).replace("/", "."), pod)
        if problem:
            return "SysctlForbidden", f'forbidden sysctl: "{each["name"]}" {problem}'
    for contexts in (context, *(each.spec.get("securityContext") or {} for each in pod.init + pod.main)):
        if (contexts.get("appArmorProfile") or {}).get("type") == "Localhost":
            return "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    return None


def _sysctl_problem(name: str, pod: PodView) -> str:
    if name not in SAFE_SYSCTLS:
        return "not allowlisted"
    if name.startswith("net.") and pod.host_network:
        return "not allowed with host net enabled"
    if name.startswith("kernel.") and pod.spec.get("hostIPC"):
        return "not allowed with host ipc enabled"
    return ""
