"""Engine logs: one file per engine that is appended to, and rotated from outside without the engine's help.

The engine holds the file open with O_APPEND, so writing never waits for a reader, and after a truncation the
next line lands at the new end. Prompts are not in these logs: vLLM's request and access logs are off (spec).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

BYTES_MAX: Final = 8 * 2**20
FILES_KEPT: Final = 3
TAIL_BYTES: Final = 64 * 2**10
POINTERS: Final = ("See root cause above", "See stack trace for root cause")
"""vLLM ends a failed start with exceptions that only point at the one that matters."""


class EngineLog:
    """The log of one engine: `path`, and older parts of it at `path.1` (newest) to `path.N`."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX, files_kept: int = FILES_KEPT) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._files_kept = files_kept

    def rotate_if_large(self) -> bool:
        """Move the log's content aside once it is larger than allowed; whether it was.

        Copy and truncate, because the engine keeps writing to the same file. A line written between the two
        is lost; it would be one of tens of thousands.
        """
        try:
            if self.path.stat().st_size <= self._bytes_max:
                return False
        except FileNotFoundError:
            return False
        for number in range(self._files_kept - 1, 0, -1):
            older = self._part(number)
            if older.exists():
                older.replace(self._part(number + 1))
        # Into place only when whole: a full disk must not leave half a file under a name that looks complete.
        fresh = self.path.with_name(self.path.name + ".tmp")
        shutil.copyfile(self.path, fresh)
        fresh.replace(self._part(1))
        os.truncate(self.path, 0)
        return True

    def last_error(self) -> str | None:
        """The last line that names an exception, for the reason why an engine died; None where none does."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - TAIL_BYTES))
                tail = file.read().decode(errors="replace")
        except OSError:
            return None
        for line in reversed(tail.splitlines()):
            text = line.partition("] ")[2] or line
            name = text.strip().partition(":")[0]
            pointer = any(words in text for words in POINTERS)
            if name.endswith(("Error", "Exception", "Interrupt")) and " " not in name and not pointer:
                return text.strip()[:400]
        return None

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
