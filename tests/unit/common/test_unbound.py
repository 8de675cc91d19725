"""The resolver's configuration."""

from pathlib import Path

import pytest

from common.unbound import unbound_conf


def conf(**more):
    fields = {
        "dns_address": "10.96.0.10",
        "control_socket": Path("/run/u.ctl"),
        "pid_file": Path("/run/u.pid"),
        "pod_cidr": "10.64.0.0/12",
        "service_cidr": "10.96.0.0/16",
    }
    return unbound_conf(**{**fields, **more})


def test_cluster_names_are_local_and_others_refused_or_forwarded():
    assert 'local-zone: "cluster.local." static' in conf()
    assert 'local-zone: "." refuse' in conf()
    forwarded = conf(forwarders=["192.0.2.1", "192.0.2.2@5353"])
    assert 'local-zone: "." refuse' not in forwarded
    assert forwarded.count("forward-addr:") == 2


def test_impossible_address_is_refused():
    with pytest.raises(ValueError, match="Expected 4 octets"):
        conf(dns_address="10.96.0")
