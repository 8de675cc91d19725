"""The broker's access list: what mosquitto's dynamic-security plugin should hold, and how to get there.

Per host one client (the CN of its agent's certificate) with one role of the same name: read the cluster scope, its own
scope and the scopes of the namespaces it holds; write its own reports. Everything else is denied by default. Entries
for a namespace are added before a host's interest is published, and taken away after it was withdrawn. Changing a
role's entries does not disconnect its clients (mosquitto 2.0); giving a client another role would.

Protocol: mosquitto dynamic-security, JSON commands on ``$CONTROL/dynamic-security/v1``, answers on ``.../response``.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from common.broker import CONTROL_TOPIC, CONTROLLER, acl, read_acls
from common.errors import Retryable
from common.logs import logger
from common.messages import ROOT, Scope
from common.mqtt import Outgoing, Received
from controller.network.publish import Broker

RESPONSE_TOPIC: Final = f"{CONTROL_TOPIC}/response"
ANSWER_S_MAX: Final = 10.0
COMMANDS_MAX: Final = 100
"""Per message: well below the broker's size limit."""

Access = Mapping[str, frozenset[str]]
"""Host name -> namespaces whose scope it may read."""

log = logger("network")


def host_acls(host: str, namespaces: frozenset[str]) -> list[dict[str, Any]]:
    """Entries of a host's role."""
    scopes = [Scope.cluster(), Scope.host(host), *(Scope.namespace(name) for name in sorted(namespaces))]
    entries = [entry for scope in scopes for entry in read_acls(scope.filter)]
    return [*entries, acl("publishClientSend", f"{ROOT}/report/{host}/#")]


def plan_access(want: Access, have: Access) -> list[dict[str, Any]]:
    """Commands that turn ``have`` into ``want``. Pure."""
    commands: list[dict[str, Any]] = []
    for host in sorted(want.keys() | have.keys()):
        if host not in want:
            commands.append({"command": "deleteClient", "username": host})
            commands.append({"command": "deleteRole", "rolename": host})
        elif host not in have:
            entries = host_acls(host, want[host])
            commands.append({"command": "createRole", "rolename": host, "acls": entries})
            commands.append({"command": "createClient", "username": host, "roles": [{"rolename": host}]})
        elif want[host] != have[host]:
            entries = host_acls(host, want[host])
            commands.append({"command": "modifyRole", "rolename": host, "acls": entries})
    return commands


def access_of(roles: list[dict[str, Any]], clients: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    """Read ``Access`` back from verbose listings. Hosts whose entries are not exactly ours are left out. Pure."""
    prefix, suffix = f"{ROOT}/ns/", "/#"
    known = {client["username"]: [role["rolename"] for role in client.get("roles", ())] for client in clients}
    found = {}
    for role in roles:
        host, entries = role["rolename"], role.get("acls", [])
        if host == CONTROLLER:
            continue
        topics = {entry["topic"] for entry in entries if entry["acltype"] == "subscribePattern"}
        namespaces = frozenset(
            topic.removeprefix(prefix).removesuffix(suffix) for topic in topics if topic.startswith(prefix)
        )
        wanted = {(entry["acltype"], entry["topic"]) for entry in host_acls(host, namespaces)}
        actual = {(entry["acltype"], entry["topic"]) for entry in entries if entry["allow"]}
        if known.get(host) == [host] and actual == wanted:
            found[host] = namespaces
    return found


class AccessList:
    """Talks to the plugin. ``load`` after each connect, then ``grant`` before and ``settle`` after publishing."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._have: dict[str, frozenset[str]] = {}
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._sent = 0

    @property
    def have(self) -> Access:
        """What the broker holds."""
        return dict(self._have)

    def on_message(self, message: Received) -> None:
        """To be called with every message on ``RESPONSE_TOPIC``."""
        for response in json.loads(message.payload).get("responses", ()):
            future = self._waiting.pop(response.get("correlationData", ""), None)
            if future is not None and not future.done():
                future.set_result(response)

    async def load(self) -> None:
        """Subscribe to answers and read what is there. Raises ``Retryable``."""
        await self._broker.subscribe((RESPONSE_TOPIC,))
        listing = {"verbose": True, "count": -1, "offset": 0}
        answers = await self._ask([{"command": "listRoles", **listing}, {"command": "listClients", **listing}])
        roles, clients = answers[0].get("data", {}).get("roles", []), answers[1].get("data", {}).get("clients", [])
        self._have = access_of(roles, clients)
        odd = {role["rolename"] for role in roles} - self._have.keys() - {CONTROLLER}
        odd |= {client["username"] for client in clients} - self._have.keys() - {CONTROLLER}
        if odd:
            log.warning("replacing access that is not ours", hosts=sorted(odd))
            await self._ask([{"command": "deleteClient", "username": name} for name in sorted(odd)])
            await self._ask([{"command": "deleteRole", "rolename": name} for name in sorted(odd)])

    async def grant(self, want: Access) -> None:
        """Add what ``want`` has and the broker has not; take nothing away. Raises ``Retryable``."""
        both = {
            host: want.get(host, frozenset()) | self._have.get(host, frozenset())
            for host in want.keys() | self._have.keys()
        }
        await self._apply(both)

    async def settle(self, want: Access) -> None:
        """Make the broker's list exactly ``want``. Raises ``Retryable``."""
        await self._apply(want)

    async def _apply(self, want: Access) -> None:
        commands = plan_access(want, self._have)
        if not commands:
            return
        for answer in await self._ask(commands):
            if "error" in answer:
                raise Retryable(f"the broker refused {answer.get('command')}: {answer['error']}")
        self._have = dict(want)

    async def _ask(self, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send commands, return their answers in order."""
        answers: list[dict[str, Any]] = []
        for start in range(0, len(commands), COMMANDS_MAX):
            tagged: dict[str, dict[str, Any]] = {}
            for command in commands[start : start + COMMANDS_MAX]:
                self._sent += 1
                tagged[str(self._sent)] = {**command, "correlationData": str(self._sent)}
            loop = asyncio.get_running_loop()
            futures = {tag: loop.create_future() for tag in tagged}
            self._waiting.update(futures)
            try:
                payload = json.dumps({"commands": list(tagged.values())}).encode()
                await self._broker.publish((Outgoing(CONTROL_TOPIC, payload, retain=False),))
                async with asyncio.timeout(ANSWER_S_MAX):
                    answers += await asyncio.gather(*futures.values())
            except TimeoutError as err:
                raise Retryable("the broker's access list does not answer") from err
            finally:
                for tag in futures:
                    self._waiting.pop(tag, None)
        return answers
