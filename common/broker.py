"""How the broker (mosquitto 2.0) has to be set up for Sphere: its configuration and its first access list.

Identity is the client certificate's CN (``use_identity_as_username``); there are no passwords. Who may do what is
kept by mosquitto's dynamic-security plugin, which denies by default and starts with one client: the controller. The
controller then adds each host over ``$CONTROL/dynamic-security/v1``. The plugin writes changes back to its file, so
``initial_dynamic_security`` is written once, when there is no file yet, and never again.
"""

from pathlib import Path
from typing import Any, Final

from common.messages import MESSAGE_BYTES_MAX, ROOT
from common.settings import TlsFiles

PLUGIN: Final = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
CONTROLLER: Final = "sphere-controller"
"""CN of the controller's certificate, its user name and its role in the broker."""
CONTROL_TOPIC: Final = "$CONTROL/dynamic-security/v1"
PACKET_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 2048
"""Payload, topic and headers."""
QUEUED_MESSAGES_MAX: Final = 1_000_000
"""Per client. A new subscription queues everything retained at once; what does not fit would be lost."""


def mosquitto_conf(
    *,
    address: str,
    port: int,
    tls: TlsFiles,
    state_dir: Path,
    dynamic_security: Path,
    user: str = "mosquitto",
    plugin: Path = PLUGIN,
) -> str:
    """Text of ``mosquitto.conf``.

    Started as root, mosquitto becomes ``user`` before it reads certificates and the ``dynamic_security`` file: that
    user must be able to read the key of ``tls`` and to write ``state_dir``, the file and its directory. With
    ``user="root"`` it stays root (one-machine clusters, whose key files belong to root).
    """
    lines = (
        f"user {user}",
        f"listener {port} {address}",
        f"cafile {tls.ca}",
        f"certfile {tls.cert}",
        f"keyfile {tls.key}",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"plugin {plugin}",
        f"plugin_opt_config_file {dynamic_security}",
        "persistence true",
        f"persistence_location {state_dir}/",
        "autosave_interval 60",
        f"max_packet_size {PACKET_BYTES_MAX}",
        "max_inflight_messages 0",
        f"max_queued_messages {QUEUED_MESSAGES_MAX}",
        "max_keepalive 60",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    )
    return "\n".join(lines) + "\n"


def acl(kind: str, topic: str) -> dict[str, Any]:
    """One allowing entry of a dynamic-security role; ``kind`` is for example ``subscribePattern``."""
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}


def read_acls(pattern: str) -> tuple[dict[str, Any], ...]:
    """Entries that allow to subscribe to ``pattern`` and to receive what it matches."""
    return (acl("subscribePattern", pattern), acl("publishClientReceive", pattern))


def initial_dynamic_security() -> dict[str, Any]:
    """Content (JSON) of the plugin's file for a new broker: the controller may do all, nobody else anything."""
    acls = [
        acl("publishClientSend", "$CONTROL/dynamic-security/#"),
        *read_acls("$CONTROL/dynamic-security/#"),
        acl("publishClientSend", f"{ROOT}/#"),
        *read_acls(f"{ROOT}/#"),
        *read_acls("$SYS/#"),
    ]
    return {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [{"username": CONTROLLER, "textname": "", "roles": [{"rolename": CONTROLLER, "priority": 0}]}],
        "groups": [],
        "roles": [
            {"rolename": CONTROLLER, "textname": "", "textdescription": "desired state and access", "acls": acls}
        ],
    }
