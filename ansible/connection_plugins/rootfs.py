"""Ansible connection into a root file system on this machine, by chroot(8).

The image builder and the tests deploy a role onto a clean tree with it. community.general has a like plugin, but
ships with half a gigabyte of collections that nothing else here needs.
"""

import os
import shutil
import subprocess
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: rootfs
    short_description: Run tasks inside a root file system
    description: Runs commands with chroot in the tree that C(ansible_host) names. Needs root.
    options:
      root:
        description: Path of the tree.
        default: inventory_hostname
        vars:
          - name: ansible_host
"""

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
"""All that is handed on of this machine's environment, whose paths need not exist in the tree."""


class Connection(ConnectionBase):  # type: ignore[misc]
    """Commands by ``chroot ROOT /bin/sh -c``, files by plain copies."""

    transport = "rootfs"
    has_pipelining = True

    def _connect(self) -> "Connection":
        if not self._connected:
            self.root = os.path.realpath(self.get_option("root"))
            if not os.access(os.path.join(self.root, "bin/sh"), os.X_OK):
                raise AnsibleError(f"{self.root} is not a root file system: it has no /bin/sh")
            self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = subprocess.run(
            ["/usr/sbin/chroot", self.root, "/bin/sh", "-c", cmd],
            input=in_data,
            capture_output=True,
            check=False,
            env=ENVIRONMENT | {name: os.environ[name] for name in PROXIES if name in os.environ},
        )
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, self._inside(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        shutil.copyfile(self._inside(in_path), out_path)

    def _inside(self, path: str) -> str:
        return os.path.join(self.root, os.path.normpath(path).lstrip("/"))

    def close(self) -> None:
        self._connected: Any = False
