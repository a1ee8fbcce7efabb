"""The receipts of an engine as a file: what it worked on, also after its process is gone.

Beside the engine's socket lie `<socket>-<boot>-<part>.receipts`: one line of JSON for each request that is
over, each one write(2). They are kept for a while (`prune`), to compare what engines did with the charges.

    {"boot": "…", "part": 0, "since_ms": n, "before": [lines, input, cached, output]}
    [request_id, ended_ms, input, cached, output, exchanges, aborted, all_input, all_cached, all_output]
    {"ended_ms": n}

The last line is that of an engine that ended by itself. `input`, `cached` and `output` are the request's
receipt: a prompt once, whatever its number of choices. A request that was sent again has another line, which
has all of it. `all_…` count as the engine's metrics do, every choice's prompt; what an earlier line of the
same request told is not in them. Requests without an id, such as a keeper's probes, have an empty one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

SUFFIX: Final = ".receipts"
PART_BYTES: Final = 64 * 1024 * 1024
KEEP_S: Final = 3 * 24 * 3600.0
"""A day longer than journals are kept."""


class Line(msgspec.Struct, array_like=True, frozen=True):
    """One request that is over."""

    request_id: str
    ended_ms: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    exchanges: int
    aborted: bool
    all_input_tokens: int
    all_cached_tokens: int
    all_output_tokens: int


class Head(msgspec.Struct):
    """The first line of a file."""

    boot: str
    part: int
    since_ms: int
    before: tuple[int, int, int, int]
    """Of the parts before this one: requests, and the sums of `all_…`."""


class End(msgspec.Struct):
    """The last line of an engine that ended by itself."""

    ended_ms: int


_encode = msgspec.json.Encoder().encode
_line = msgspec.json.Decoder(Line).decode
_head = msgspec.json.Decoder(Head).decode


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class ReceiptLog:
    """The file of this process. A disk that refuses ends it, and no request for that."""

    def __init__(self, socket: Path, *, part_bytes: int = PART_BYTES) -> None:
        self.boot = os.urandom(8).hex()
        """This start of the engine, unique."""
        self._socket = socket
        self._part_bytes = part_bytes
        self._part = 0
        self._sums = (0, 0, 0, 0)
        self._file = -1
        self._bytes = 0
        self._open_part()

    @property
    def requests(self) -> int:
        """Lines written so far."""
        return self._sums[0]

    def add(self, line: Line) -> None:
        """Write one line."""
        self._sums = _plus(self._sums, line)
        self._write(line)
        if self._bytes > self._part_bytes:
            self._close_part()
            self._part += 1
            self._open_part()

    def close(self) -> None:
        """Say that the engine ended by itself, with everything told."""
        self._write(End(now_ms()))
        self._close_part()

    def _open_part(self) -> None:
        path = self._socket.with_name(f"{self._socket.stem}-{self.boot}-{self._part:04d}{SUFFIX}")
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._fail(error)
        self._bytes = 0
        self._write(Head(self.boot, self._part, now_ms(), self._sums))

    def _write(self, what: Line | Head | End) -> None:
        if self._file < 0:
            return
        data = _encode(what) + b"\n"
        try:
            # A part of a line is followed by nothing, and so is no line.
            if os.write(self._file, data) < len(data):
                raise OSError("the disk took only a part of a line")
        except OSError as error:
            self._fail(error)
        self._bytes += len(data)

    def _close_part(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _fail(self, error: OSError) -> None:
        print(f"receipts are not written any more: {error}", flush=True)  # noqa: T201 - the engine's log
        self._close_part()


class Boot(msgspec.Struct, kw_only=True):
    """What the files of one start of an engine tell."""

    boot: str
    paths: list[Path]
    """In order."""
    since_ms: int
    """From when on every receipt is there."""
    last_ms: int
    """When the last line was written."""
    ended: bool = False
    killed: bool = False
    """Its process is gone, and did not end by itself."""

    def lines(self, since_ms: int = 0) -> Iterator[Line]:
        """Every line that ended since."""
        for path in self.paths:
            if path.exists() and path.stat().st_mtime * 1000 >= since_ms:
                yield from (line for line in _lines(path) if line.ended_ms >= since_ms)

    def sums(self, requests: int) -> tuple[int, int, int] | None:
        """Sum up the first so many requests as the engine's metrics do: input, cached and output tokens.

        None when there are not so many, or the parts that tell were deleted.
        """
        for path in self.paths:
            head = _read_head(path)
            if head is None or head.before[0] > requests:
                return None
            total = head.before
            for line in _lines(path):
                if total[0] == requests:
                    break
                total = _plus(total, line)
            if total[0] == requests:
                return total[1:]
        return None


def boots(socket: Path, since_ms: int = 0) -> list[Boot]:
    """List the starts of the engine at a socket that wrote anything since, the oldest first."""
    found: dict[str, Boot] = {}
    for path in sorted(socket.parent.glob(f"{socket.stem}-*{SUFFIX}")):
        boot, _, part = path.name.removeprefix(socket.stem + "-").removesuffix(SUFFIX).rpartition("-")
        if len(boot) != 16 or not part.isdecimal() or (head := _read_head(path)) is None:
            continue
        wrote_ms = int(path.stat().st_mtime * 1000)
        known = found.setdefault(
            boot, Boot(boot=boot, paths=[], since_ms=head.since_ms, last_ms=head.since_ms)
        )
        known.paths.append(path)
        known.last_ms = max(known.last_ms, wrote_ms)
        known.ended = _ended(path)
        known.killed = not known.ended and not _open(path)
    return sorted(
        (one for one in found.values() if one.last_ms >= since_ms), key=lambda one: (one.since_ms, one.boot)
    )


def prune(folder: Path, keep_s: float = KEEP_S) -> int:
    """Delete the files in and one level below a folder that nobody wrote to for a while; returns how many."""
    count = 0
    for path in (*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*/*{SUFFIX}")):
        with contextlib.suppress(OSError):
            # An engine that lives may still write to it.
            if time.time() - path.stat().st_mtime > keep_s and not _open(path):
                path.unlink()
                count += 1
    return count


def _plus(total: tuple[int, int, int, int], line: Line) -> tuple[int, int, int, int]:
    requests, input_tokens, cached_tokens, output_tokens = total
    return (
        requests + 1,
        input_tokens + line.all_input_tokens,
        cached_tokens + line.all_cached_tokens,
        output_tokens + line.all_output_tokens,
    )


def _read_head(path: Path) -> Head | None:
    try:
        with path.open("rb") as file:
            return _head(file.readline())
    except (OSError, msgspec.MsgspecError):
        return None


def _ended(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read().rpartition(b"\n")[0].rpartition(b"\n")[2].startswith(b'{"ended_ms"')


def _open(path: Path) -> bool:
    """Whether the process that writes the file lives."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lines(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        for data in file:
            # What is no whole line was not finished, and the first and the last line are no requests.
            if data.startswith(b"[") and data.endswith(b"]\n"):
                yield _line(data)
