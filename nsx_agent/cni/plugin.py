#!/usr/bin/env python3
"""A standard CNI executable (CNI specification 1.0.0) in front of the agent's socket. Standard library only.

Network configuration: ``{"cniVersion": "1.0.0", "name": "...", "type": "nsx", "socket": "/run/nsx/cni.sock"}``.
The pod is named by ``K8S_POD_UID`` in ``CNI_ARGS``; without it, by ``CNI_CONTAINERID``.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

VERSIONS = ["0.3.1", "0.4.0", "1.0.0"]
SOCKET = "/run/nsx-agent/cni.sock"
TIMEOUT_S = 20.0
# Error codes: 1-99 are the specification's, from 100 ours.
UNSUPPORTED_VERSION, INVALID_ENVIRONMENT, DECODE_FAILED, TRY_AGAIN, FAILED = 1, 4, 6, 11, 100


class PluginError(Exception):
    """Ends the run with a CNI error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def ask(path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request to the agent. Raises ``PluginError``."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT_S + 10)
            client.connect(path)
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answer:
                reply: dict[str, Any] = json.loads(answer.readline())
    except (OSError, ValueError) as err:
        raise PluginError(TRY_AGAIN, f"nsx-agent does not answer on {path}: {err}; is it running?") from err
    if not reply.get("ok"):
        code = TRY_AGAIN if reply.get("code") in ("timeout", "unknown-port") else FAILED
        raise PluginError(code, reply.get("message", "failed"))
    return reply


def pod_uid(environment: Mapping[str, str]) -> str:
    """The pod that the request is about. Raises ``PluginError``."""
    for pair in environment.get("CNI_ARGS", "").split(";"):
        name, _, value = pair.partition("=")
        if name == "K8S_POD_UID" and value:
            return value
    if environment.get("CNI_CONTAINERID"):
        return environment["CNI_CONTAINERID"]
    raise PluginError(INVALID_ENVIRONMENT, "neither K8S_POD_UID in CNI_ARGS nor CNI_CONTAINERID is set")


def result(version: str, netns: str, ifname: str, reply: Mapping[str, Any]) -> dict[str, Any]:
    """The CNI result of an ADD."""
    address = {"address": f"{reply['address']}/{reply['prefix']}", "gateway": reply["gateway"], "interface": 0}
    if version.startswith("0."):
        address["version"] = "4"
    return {
        "cniVersion": version,
        "interfaces": [{"name": ifname, "mac": reply["mac"], "sandbox": netns}],
        "ips": [address],
        "routes": [{"dst": "0.0.0.0/0", "gw": reply["gateway"]}],
        "dns": {},
    }


def run(environment: Mapping[str, str], stdin: str) -> dict[str, Any] | None:
    """Handle one invocation. Returns the object to print, or None. Raises ``PluginError``."""
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return {"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS}
    try:
        config = json.loads(stdin)
        version, path = config.get("cniVersion", "0.3.1"), config.get("socket", SOCKET)
    except (ValueError, AttributeError) as err:
        raise PluginError(DECODE_FAILED, f"the network configuration is not a JSON object: {err}") from err
    if version not in VERSIONS:
        raise PluginError(UNSUPPORTED_VERSION, f"cniVersion {version} is not one of {', '.join(VERSIONS)}")
    uid, netns = pod_uid(environment), environment.get("CNI_NETNS", "")
    ifname = environment.get("CNI_IFNAME", "eth0")
    if command == "ADD":
        if not netns:
            raise PluginError(INVALID_ENVIRONMENT, "CNI_NETNS is not set")
        request = {"op": "add", "pod_uid": uid, "netns": netns, "ifname": ifname, "timeout_s": TIMEOUT_S}
        return result(version, netns, ifname, ask(path, request))
    if command == "DEL":
        ask(path, {"op": "del", "pod_uid": uid, "netns": netns})
        return None
    if command in ("CHECK", "STATUS", "GC"):
        ask(path, {"op": "status"})
        return None
    raise PluginError(INVALID_ENVIRONMENT, f"CNI_COMMAND {command!r} is unknown")


def main() -> int:
    """Entry point: status 0, or 1 with an error object on standard output."""
    environment = dict(os.environ)
    stdin = "" if environment.get("CNI_COMMAND") == "VERSION" else sys.stdin.read()
    try:
        answer = run(environment, stdin)
    except PluginError as err:
        print(json.dumps({"cniVersion": VERSIONS[-1], "code": err.code, "msg": str(err)}))
        return 1
    if answer is not None:
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
