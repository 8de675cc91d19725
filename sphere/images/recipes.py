"""Which images there are and what is in them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sphere.layout import PROJECT

DOCUMENTS: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/bash-completion",
)
"""Taken away from every image."""


@dataclass(frozen=True)
class Recipe:
    """An image: Debian packages unpacked, some of it taken away, some files of ours added."""

    file: str
    name: str
    packages: tuple[str, ...]
    config: Mapping[str, Any]
    pruned: tuple[str, ...] = ()
    """Glob patterns below the root."""
    trees: Mapping[str, Path] = field(default_factory=dict)
    """Place in the image -> directory of sources."""


_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBC_PRUNED: Final = ("usr/lib/*/gconv", "usr/lib/*/audit", "usr/share/libc-bin")

BUSYBOX: Final = Recipe(
    "busybox",
    "docker.io/library/busybox:latest",
    ("busybox-static",),
    {"Cmd": ["sh"], "Env": [_PATH]},
)

REDIS: Final = Recipe(
    "redis",
    "docker.io/library/redis:latest",
    (
        "busybox-static",
        *(
            "libatomic1",
            "libc6",
            "libcap2",
            "libgcc-s1",
            "libgcrypt20",
            "libgpg-error0",
            "libhiredis0.14",
            "libjemalloc2",
        ),
        *("liblua5.1-0", "liblz4-1", "liblzf1", "liblzma5", "libssl3", "libstdc++6", "libsystemd0", "libzstd1"),
        *("lua-bitop", "lua-cjson", "redis-server", "redis-tools"),
    ),
    {
        "Cmd": ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""],
        "Env": [_PATH],
        "WorkingDir": "/data",
        "ExposedPorts": {"6379/tcp": {}},
    },
    pruned=(*_LIBC_PRUNED, "etc/init.d", "etc/default", "etc/logrotate.d", "lib/systemd", "usr/lib/systemd"),
)

SHOP: Final = Recipe(
    "shop",
    "docker.io/sphere/shop:latest",
    (
        "busybox-static",
        *("libc6", "libexpat1", "libssl3", "zlib1g"),
        *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
    ),
    {
        "Env": [_PATH, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
        "WorkingDir": "/app",
        "Entrypoint": ["/usr/bin/python3.11"],
        "Cmd": ["web.py"],
        "ExposedPorts": {"8080/tcp": {}},
    },
    pruned=(
        *_LIBC_PRUNED,
        *(
            f"usr/lib/python3.11/{name}"
            for name in ("distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3")
        ),
        *("usr/lib/python3.11/unittest", "usr/lib/python3.11/test", "usr/share/binfmts", "usr/share/python3"),
        "usr/lib/python3.11/lib-dynload/_codecs_*",
    ),
    trees={"app": PROJECT / "examples" / "shop" / "app"},
)

EVERYWHERE: Final = (BUSYBOX,)
"""Images that `sphere up` puts on every host."""
DEMO: Final = (REDIS, SHOP)
