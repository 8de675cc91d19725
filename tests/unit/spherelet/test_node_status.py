"""The Node object: conditions tell what is wrong, transitions keep their time, nothing changes without cause."""

from dataclasses import replace

from spherelet.node_status import Health, Identity, Machine, node, status, without_heartbeat

IDENTITY = Identity(
    host="host-1", address="172.30.0.11", port=10250, handlers=("crun", "runc"), labels={"zone": "a"},
    cpu=None, memory=None, ephemeral_storage="10Gi", pods=110,
)  # fmt: skip
MACHINE = Machine("id", "uuid", "boot", "6.1.0", "Debian", "amd64", 2, 8 << 30, 100 << 30, 0)
WELL = Health("", "", 4 << 30, 50 << 30, 100 << 30, 900, 1000, 100, 32768)


def of(health: Health, before: list[dict[str, str]], now: float) -> dict[str, dict[str, str]]:
    """Conditions by type."""
    body = status(IDENTITY, MACHINE, health, "1.6.20", [], before, now)
    return {each["type"]: each for each in body["conditions"]}


def test_a_well_host_is_ready_and_under_no_pressure() -> None:
    found = of(WELL, [], 0.0)
    assert {kind: each["status"] for kind, each in found.items()} == {
        "Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False",
        "NetworkUnavailable": "False",
    }  # fmt: skip
    assert found["Ready"]["reason"] == "KubeletReady"


def test_dead_daemons_and_pressure_are_named() -> None:
    found = of(replace(WELL, runtime="containerd: unavailable", network="refused"), [], 0.0)
    assert found["Ready"]["status"] == "False"
    assert "containerd: unavailable" in found["Ready"]["message"]
    assert "refused" in found["Ready"]["message"]
    assert found["NetworkUnavailable"]["status"] == "True"
    assert of(replace(WELL, disk_available=1 << 20), [], 0.0)["DiskPressure"]["status"] == "True"
    assert of(replace(WELL, inodes_available=10), [], 0.0)["DiskPressure"]["status"] == "True"
    assert of(replace(WELL, memory_available=1 << 20), [], 0.0)["MemoryPressure"]["status"] == "True"
    assert of(replace(WELL, pids=32700), [], 0.0)["PIDPressure"]["status"] == "True"


def test_transition_times_move_only_with_the_status() -> None:
    first = of(WELL, [], 0.0)
    second = of(replace(WELL, network="refused"), list(first.values()), 60.0)
    assert second["Ready"]["lastTransitionTime"] == "1970-01-01T00:01:00Z"
    assert second["DiskPressure"]["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    assert second["DiskPressure"]["lastHeartbeatTime"] == "1970-01-01T00:01:00Z"


def test_nothing_changes_without_cause() -> None:
    first = status(IDENTITY, MACHINE, WELL, "1.6.20", [], [], 0.0)
    second = status(IDENTITY, MACHINE, replace(WELL, memory_available=3 << 30), "1.6.20", [], first["conditions"], 99.0)
    assert without_heartbeat(first) == without_heartbeat(second)


def test_capacity_follows_the_machine_unless_configured() -> None:
    body = status(IDENTITY, MACHINE, WELL, "1.6.20", [], [], 0.0)
    assert body["capacity"] | {"pods": "110"} == body["allocatable"]
    assert (body["capacity"]["cpu"], body["capacity"]["memory"]) == ("2", f"{8 << 20}Ki")
    assert body["capacity"]["ephemeral-storage"] == "10Gi"
    assert node(IDENTITY, MACHINE)["metadata"]["labels"]["kubernetes.io/hostname"] == "host-1"
