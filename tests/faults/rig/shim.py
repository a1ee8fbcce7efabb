"""A library put between a real gateway and its C library: a disk and a clock that break on command."""

from __future__ import annotations

import ctypes
import enum
import mmap
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class At(enum.IntEnum):
    """What happens at an append to the journal; the values are those of shim.c."""

    NOTHING = 0
    DIE_BEFORE = 1
    """SIGKILL: nothing of the record is written."""
    DIE_TORN = 2
    """SIGKILL: half of it is."""
    DIE_AFTER = 3
    """SIGKILL: it is written, and the response's last byte has not left."""
    STOP_AFTER = 4
    """SIGSTOP there."""


class Fields(ctypes.Structure):
    """As `struct control` in shim.c."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("sync_errno", "room_errno", "clock_offset_s", "append_action", "append_number", "appends"),
        )
    ]


def build(folder: Path) -> Path:
    """Compile the library; a machine without a C compiler fails here, and no test is skipped for it."""
    library = folder / "shim.so"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE],
        check=True,
    )
    return library


class Control:
    """The numbers that one process's library obeys, from now on."""

    def __init__(self, path: Path, library: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.fields = Fields.from_buffer(self._map)
        self.environment = {"LD_PRELOAD": str(library), "PENSTOCK_FAULT_CONTROL": str(path)}

    def at_append(self, number: int, what: At) -> None:
        """Let something happen at the `number`-th append from now."""
        self.fields.append_number = number
        self.fields.append_action = int(what)
