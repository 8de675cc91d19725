"""The first process of a PID namespace that containers share: it inherits orphans, has the kernel reap them, sleeps.

It is a program of three system calls, written down here as what the processor runs, because a host need not have any
small program that does this, and a shell would neither reap nor be small. Nothing else is in its root file system.
"""

import os
import platform
import struct
from pathlib import Path
from typing import Final

from common.errors import Terminal
from spherelet.model import Image

_CODE: Final = bytes.fromhex(
    "b80d000000"  # mov  eax, 13        rt_sigaction
    "bf11000000"  # mov  edi, 17        SIGCHLD
    "488d3517000000"  # lea  rsi, [action]
    "31d2"  # xor  edx, edx
    "41ba08000000"  # mov  r10d, 8      size of the mask
    "0f05"  # syscall
    "b822000000"  # mov  eax, 34        pause; and again after a signal
    "0f05"  # syscall
    "ebf7"  # jmp  -9
    "90909090"
)
_ACTION: Final = struct.pack("<QQQQ", 1, 0x2, 0, 0)
"""``struct sigaction``: SIG_IGN with SA_NOCLDWAIT, so that children that end leave nothing behind."""
_BASE: Final = 0x400000
_HEADER_BYTES: Final = 64 + 56
_MACHINE_X86_64: Final = 62
_EXECUTABLE, _LOAD, _READ_EXECUTE = 2, 1, 5


def program() -> bytes:
    """A static ELF executable for x86-64 (System V ABI): header, one segment, code."""
    size = _HEADER_BYTES + len(_CODE) + len(_ACTION)
    entry = _BASE + _HEADER_BYTES
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bit, little endian
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", _EXECUTABLE, _MACHINE_X86_64, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + _CODE + _ACTION


def image(directory: Path) -> Image:
    """The image that a pause container is made of, below ``directory``; made on first use. Raises ``Terminal``."""
    if platform.machine() != "x86_64":
        raise Terminal(f"shareProcessNamespace is not supported on hosts of architecture {platform.machine()}")
    path = directory / "pause"
    if not path.exists():
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = directory.with_name(f"{directory.name}.new")
        fresh.write_bytes(program())
        fresh.chmod(0o755)
        os.replace(fresh, path)
    return Image(id="", reference="", layers=(str(directory),), config={"Entrypoint": ["/pause"]})
