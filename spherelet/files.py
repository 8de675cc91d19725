"""Files that every pod gets: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import Terminal
from spherelet.config import Dns
from spherelet.model import PodView

SEARCH_MAX = 32
NAMESERVERS_MAX = 3
HOSTNAME_CHARS_MAX = 63
KERNEL_HOSTNAME_CHARS_MAX = 64


def hostname(pod: PodView, host: str) -> str:
    """The pod's host name: its own, or the host's with hostNetwork; at most 63 characters."""
    if pod.host_network:
        return host
    return str(pod.spec.get("hostname") or pod.name)[:HOSTNAME_CHARS_MAX].rstrip("-.")


def kernel_hostname(pod: PodView, host: str, domain: str) -> str:
    """What the kernel calls the pod: the full name with ``setHostnameAsFQDN``. Raises ``Terminal`` for a long one."""
    name = hostname(pod, host)
    subdomain = pod.spec.get("subdomain")
    if not pod.spec.get("setHostnameAsFQDN") or not subdomain or pod.host_network:
        return name
    full = f"{name}.{subdomain}.{pod.namespace}.svc.{domain}"
    if len(full) > KERNEL_HOSTNAME_CHARS_MAX:
        raise Terminal(
            f"Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long "
            f"({KERNEL_HOSTNAME_CHARS_MAX} characters is the max, {len(full)} characters requested)"
        )
    return full


def hosts(pod: PodView, address: str, name: str, domain: str) -> str:
    """/etc/hosts of a pod with its own network."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    subdomain = pod.spec.get("subdomain")
    if address:
        full = f"{name}.{subdomain}.{pod.namespace}.svc.{domain}\t" if subdomain else ""
        lines.append(f"{address}\t{full}{name}")
    return "\n".join(lines + host_aliases(pod)) + "\n"


def host_aliases(pod: PodView) -> list[str]:
    """Lines of ``hostAliases``."""
    aliases = pod.spec.get("hostAliases") or ()
    if not aliases:
        return []
    entries = ["{}\t{}".format(each["ip"], "\t".join(each.get("hostnames") or ())) for each in aliases]
    return ["", "# Entries added by HostAliases.", *entries]


def resolv_conf(pod: PodView, dns: Dns, host_text: str) -> str:
    """/etc/resolv.conf by ``dnsPolicy`` and ``dnsConfig``; ``host_text`` is the host's own file."""
    policy = pod.spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pod.host_network:
        policy = "Default"
    servers: list[str] = []
    search: list[str] = []
    options: dict[str, str | None] = {}
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        servers = [dns.address]
        search = [f"{pod.namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain]
        options = {"ndots": "5"}
    elif policy == "Default":
        servers, search, options = _parse(host_text)
    config: Mapping[str, Any] = pod.spec.get("dnsConfig") or {}
    servers = _unique([*servers, *(config.get("nameservers") or ())])[:NAMESERVERS_MAX]
    search = _unique([*search, *(config.get("searches") or ())])[:SEARCH_MAX]
    options |= {each["name"]: each.get("value") for each in config.get("options") or ()}
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {each}" for each in servers]
    if options:
        shown = (name if value is None else f"{name}:{value}" for name, value in options.items())
        lines.append(f"options {' '.join(shown)}")
    return "\n".join(lines) + "\n"


def _parse(text: str) -> tuple[list[str], list[str], dict[str, str | None]]:
    servers: list[str] = []
    search: list[str] = []
    options: dict[str, str | None] = {}
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            servers.append(rest[0])
        elif word in ("search", "domain"):
            search = rest
        elif word == "options":
            for each in rest:
                name, colon, value = each.partition(":")
                options[name] = value if colon else None
    return servers, search, options


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
