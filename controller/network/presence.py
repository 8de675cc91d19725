"""Which hosts' agents are connected, by their presence messages and last wills, with grace. No IO.

A killed agent is back within two seconds: its last will alone does not make its host dead, only silence beyond
``OFFLINE_GRACE_S`` does. A host that was never heard of counts as connected for ``UNHEARD_GRACE_S`` after the start,
so that a new controller beside a new broker does not empty every load balancer.
"""

from typing import Final

OFFLINE_GRACE_S: Final = 2.5
UNHEARD_GRACE_S: Final = 10.0


class Presences:
    """Times are monotonic seconds given by the caller."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._online: set[str] = set()
        self._offline_since: dict[str, float] = {}

    def heard(self, host: str, online: bool, now: float) -> None:
        """A presence message arrived."""
        if online:
            self._online.add(host)
            self._offline_since.pop(host, None)
        else:
            self._online.discard(host)
            self._offline_since.setdefault(host, now)

    def online(self, host: str, now: float) -> bool:
        """Whether to count on the host's agent."""
        if host in self._online:
            return True
        since = self._offline_since.get(host)
        if since is None:
            return now - self._started < UNHEARD_GRACE_S
        return now - since < OFFLINE_GRACE_S

    def connected(self, host: str) -> bool:
        """Whether the last word of the host was that it is online; no grace."""
        return host in self._online

    def next_deadline(self, now: float) -> float | None:
        """When an answer of ``online`` may change by time alone, or None."""
        ends = [since + OFFLINE_GRACE_S for since in self._offline_since.values()]
        ends.append(self._started + UNHEARD_GRACE_S)
        return min((end for end in ends if end > now), default=None)
