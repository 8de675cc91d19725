"""What `up` was asked for: kept in a file, from which later commands know the machines. Light: completion reads it."""

import json
from dataclasses import asdict, dataclass

from common.errors import Terminal
from sphere import topology
from sphere.layout import Layout
from sphere.topology import Machine


@dataclass(frozen=True)
class Wanted:
    """What `up` was asked for."""

    hosts: int = 3
    monitoring: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.hosts <= topology.HOSTS_MAX:
            raise Terminal(f"--hosts {self.hosts}: a cluster has 1 to {topology.HOSTS_MAX} hosts")


def read_wanted(layout: Layout) -> Wanted | None:
    """What the present cluster was asked to be; None when there is none."""
    try:
        return Wanted(**json.loads(layout.cluster.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as err:
        raise Terminal(f"{layout.cluster} is damaged ({err}); `sphere down` clears it away") from err


def write_wanted(layout: Layout, wanted: Wanted) -> None:
    """Note what the cluster is asked to be; a power cut leaves the old note or the new one."""
    draft = layout.cluster.with_suffix(".new")
    draft.write_text(json.dumps(asdict(wanted)))
    draft.replace(layout.cluster)


def present_hosts(layout: Layout) -> tuple[Machine, ...]:
    """Hosts of the present cluster. Raises ``Terminal`` when there is none."""
    wanted = read_wanted(layout)
    if wanted is None:
        raise Terminal("no cluster is up; start one with `sphere up`")
    return topology.hosts(wanted.hosts)
