"""What runs on each machine of the one-machine cluster: command lines and config files. Pure.

Config files of ours are TOML, see ``config.py`` of each component for their keys; the others are rendered by the
modules of ``common/`` that ansible's roles use too.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import broker, containerd_conf, prometheus_conf
from common.settings import TlsFiles
from common.unbound import unbound_conf
from sphere import topology
from sphere.layout import PROJECT, Layout
from sphere.toml import Value, dumps
from sphere.topology import Machine

ETCD_QUOTA_BYTES = 4 << 30
UNBOUND_CONTROL = Path("/run/unbound.sock")
AGENT_SOCKET = Path("/run/nsx-agent.sock")
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")


@dataclass(frozen=True)
class Component:
    """One supervised process. ``files`` are written before it starts; ``initial`` only where they do not exist."""

    name: str
    argv: tuple[str, ...]
    files: Mapping[Path, str] = field(default_factory=dict)
    initial: Mapping[Path, str] = field(default_factory=dict)
    directories: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    listens: bool = False
    """Takes the cluster's API socket in the box's own network namespace (LISTEN_FDS)."""
    renewable: bool = False
    """`up` restarts it on a running machine when its files would change."""

    def uses(self, identity: str) -> bool:
        """Whether its settings name the certificate of ``identity``."""
        return any(f"/{identity}.crt" in text for text in (*self.argv, *self.files.values()))


def of(machine: Machine, layout: Layout, *, monitoring: bool, host_count: int) -> tuple[Component, ...]:
    """Components of ``machine`` in starting order."""
    if machine.is_host:
        return (
            _containerd(machine, layout),
            _unbound(machine, layout),
            _agent(machine, layout),
            _spherelet(machine, layout),
        )
    if machine.name == topology.CONTROL:
        fixed = (_etcd(layout), _mosquitto(layout), _controller(layout))
        return (*fixed, _prometheus(layout, host_count)) if monitoring else fixed
    return ()


def tls(layout: Layout, identity: str) -> dict[str, Value]:
    """The ``tls`` table of a config file."""
    pki = layout.pki
    return {"ca": pki / "ca.crt", "cert": pki / f"{identity}.crt", "key": pki / f"{identity}.key"}


def _daemon(module: str, config: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "--config", str(config))


_DAEMON_ENV = {
    "PYTHONPATH": str(PROJECT),
    "PYTHONUNBUFFERED": "1",
    "MALLOC_ARENA_MAX": "2",  # threads of the standard library would each keep an arena of 64 MiB address space
}


def _etcd(layout: Layout) -> Component:
    state, pki = layout.state("control") / "etcd", layout.pki
    client = f"https://127.0.0.1:{topology.ETCD_PORT}"
    peer = "http://127.0.0.1:2380"
    options = {
        "name": "control",
        "data-dir": state,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"control={peer}",
        "client-cert-auth": "true",
        "client-cert-allowed-hostname": topology.CONTROLLER_NAME,
        "trusted-ca-file": pki / "ca.crt",
        "cert-file": pki / "etcd.crt",
        "key-file": pki / "etcd.key",
        "quota-backend-bytes": ETCD_QUOTA_BYTES,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "10m",
        "max-request-bytes": 4 << 20,
        "max-txn-ops": 1024,
        "logger": "zap",
        "listen-metrics-urls": f"http://{topology.ETCD_METRICS}",
    }
    argv = ("etcd", *(f"--{key}={value}" for key, value in options.items()))
    # etcd makes its directory itself, with the mode it wants.
    return Component("etcd", argv, directories=(state.parent,))


def _mosquitto(layout: Layout) -> Component:
    state = layout.state("control") / "mosquitto"
    config, access = state / "mosquitto.conf", state / "dynamic-security.json"
    pki = layout.pki
    text = broker.mosquitto_conf(
        address=str(topology.control().address),
        port=topology.BROKER_PORT,
        tls=TlsFiles(ca=pki / "ca.crt", cert=pki / "broker.crt", key=pki / "broker.key"),
        state_dir=state,
        dynamic_security=access,
        user="root",
    )
    return Component(
        "mosquitto",
        ("mosquitto", "-c", str(config)),
        files={config: text},
        initial={access: json.dumps(broker.initial_dynamic_security(), indent=2)},
        directories=(state,),
    )


def _controller(layout: Layout) -> Component:
    config = layout.state("control") / "controller.toml"
    address = str(topology.control().address)
    text = dumps(
        {
            "etcd": {
                "endpoints": [f"https://127.0.0.1:{topology.ETCD_PORT}"],
                "tls": tls(layout, "controller"),
            },
            "api": {
                "listen": f"{address}:{topology.API_PORT}",
                "advertise": address,
                "service_account_key": layout.pki / "service-account.key",
                "service_account_issuer": f"https://kubernetes.default.svc.{topology.CLUSTER_DOMAIN}",
                "tls": tls(layout, "apiserver"),
                "signer": {"cert": layout.pki / "signer.crt", "key": layout.pki / "signer.key"},
            },
            "spherelet": {"tls": tls(layout, "controller")},
            "broker": {"host": address, "port": topology.BROKER_PORT, "tls": tls(layout, "controller")},
            "network": {
                "pod_cidr": str(topology.POD_CIDR),
                "service_cidr": str(topology.SERVICE_CIDR),
                "dns_address": str(topology.DNS_ADDRESS),
                "cluster_domain": topology.CLUSTER_DOMAIN,
            },
        }
    )
    return Component(
        "sphere-controller",
        _daemon("controller", config),
        files={config: text},
        directories=(config.parent,),
        env=_DAEMON_ENV,
        listens=True,
    )


def _containerd(machine: Machine, layout: Layout) -> Component:
    state = layout.state(machine.name) / "containerd"
    config = state / "config.toml"
    text = containerd_conf.render(root=state / "root", state=CONTAINERD_SOCKET.parent, socket=CONTAINERD_SOCKET)
    argv = ("containerd", "--config", str(config))
    return Component("containerd", argv, files={config: text}, directories=(state,))


def _unbound(machine: Machine, layout: Layout) -> Component:
    state = layout.state(machine.name) / "unbound"
    config = state / "unbound.conf"
    text = unbound_conf(
        dns_address=str(topology.DNS_ADDRESS),
        control_socket=UNBOUND_CONTROL,
        pid_file=Path("/run/unbound.pid"),
        pod_cidr=str(topology.POD_CIDR),
        service_cidr=str(topology.SERVICE_CIDR),
        domain=topology.CLUSTER_DOMAIN,
    )
    return Component("unbound", ("unbound", "-d", "-c", str(config)), files={config: text}, directories=(state,))


def _agent(machine: Machine, layout: Layout) -> Component:
    state = layout.state(machine.name) / "nsx-agent"
    config = state / "nsx-agent.toml"
    identity = f"{machine.name}-agent"
    text = dumps(
        {
            "host": machine.name,
            "underlay_address": str(machine.address),
            "underlay_device": topology.UNDERLAY_DEVICE,
            "state_dir": state,
            "socket": AGENT_SOCKET,
            "pod_cidr": str(topology.POD_CIDR),
            "service_cidr": str(topology.SERVICE_CIDR),
            "broker": {
                "host": str(topology.control().address),
                "port": topology.BROKER_PORT,
                "tls": tls(layout, identity),
            },
            "metrics": {"listen": f"{machine.address}:{topology.AGENT_PORT}", "tls": tls(layout, identity)},
            "dns": {
                "address": str(topology.DNS_ADDRESS),
                "control_socket": UNBOUND_CONTROL,
                "domain": topology.CLUSTER_DOMAIN,
            },
        }
    )
    return Component(
        "nsx-agent", _daemon("nsx_agent", config), files={config: text}, directories=(state,), env=_DAEMON_ENV
    )


def _spherelet(machine: Machine, layout: Layout) -> Component:
    state = layout.state(machine.name) / "spherelet"
    config = state / "spherelet.toml"
    identity = f"{machine.name}-spherelet"
    text = dumps(
        {
            "host": machine.name,
            "address": str(machine.address),
            "state_dir": state,
            "cgroup_parent": machine.cgroup,
            "nsx_socket": AGENT_SOCKET,
            "api": {
                "url": f"https://{topology.control().address}:{topology.API_PORT}",
                "tls": tls(layout, identity),
            },
            "server": {"listen": f"{machine.address}:{topology.SPHERELET_PORT}", "tls": tls(layout, identity)},
            "containerd": {"socket": CONTAINERD_SOCKET, "namespace": "k8s.io", "offline": True},
            "runtime": {"conmon": "/usr/bin/conmon", "default": "crun"},
            "dns": {"address": str(topology.DNS_ADDRESS), "domain": topology.CLUSTER_DOMAIN},
        }
    )
    return Component(
        "spherelet", _daemon("spherelet", config), files={config: text}, directories=(state,), env=_DAEMON_ENV
    )


def _prometheus(layout: Layout, host_count: int) -> Component:
    state = layout.state("control") / "prometheus"
    config = state / "prometheus.yml"
    pki = layout.pki
    text = prometheus_conf.render(
        controllers={topology.CONTROL: str(topology.control().address)},
        hosts={host.name: str(host.address) for host in topology.hosts(host_count)},
        tls=TlsFiles(ca=pki / "ca.crt", cert=pki / "prometheus.crt", key=pki / "prometheus.key"),
        rules=[PROJECT / "ansible" / "roles" / "monitoring" / "files" / "sphere.rules.yml"],
        etcd={topology.CONTROL: topology.ETCD_METRICS},
    )
    argv = (
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={state / 'data'}",
        "--storage.tsdb.retention.time=2d",
        f"--web.listen-address={topology.control().address}:{topology.PROMETHEUS_PORT}",
    )
    return Component("prometheus", argv, files={config: text}, directories=(state,), renewable=True)
