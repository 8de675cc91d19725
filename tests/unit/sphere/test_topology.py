"""Names and addresses that others rely on."""

from sphere import topology


def test_addresses() -> None:
    addresses = {machine.name: str(machine.address) for machine in topology.machines(3)}
    assert addresses == {
        "outside": "172.30.0.250",
        "control": "172.30.0.2",
        "host-1": "172.30.0.11",
        "host-2": "172.30.0.12",
        "host-3": "172.30.0.13",
    }


def test_as_many_machines_as_allowed_do_not_collide() -> None:
    everything = topology.machines(topology.HOSTS_MAX)
    for values in ({one.address for one in everything}, {one.mac for one in everything}):
        assert len(values) == len(everything)
    assert all(one.address in topology.UNDERLAY for one in everything)


def test_macs_are_local_unicast() -> None:
    first = int(topology.host(1).mac.split(":")[0], 16)
    assert first & 0b11 == 0b10


def test_network_device_names_fit_the_kernel() -> None:
    assert all(len(machine.name) <= 15 for machine in topology.machines(topology.HOSTS_MAX))
