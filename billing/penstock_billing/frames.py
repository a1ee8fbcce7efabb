"""The journal's file format: a header, then frames of u32 length, u32 CRC-32 and a msgpack body.

All integers are little-endian. A file may end in zeros: room reserved ahead and never used.
"""

from __future__ import annotations

import enum
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock_billing.errors import JournalUnknownVersion, JournalUnreadable

MAGIC = b"PENSTOCK"
VERSION = 2
"""Raised when an older release would misread a file; readers leave versions they do not know alone.

2 brought outcomes and fields that release 1 does not know.
"""
READABLE = frozenset({1, VERSION})

HEADER = struct.Struct("<8sII16sI")
"""Magic, format version, part, boot id, CRC-32 of all before."""

HEADER_BYTES = HEADER.size
FRAME = struct.Struct("<II")
BODY_BYTES_MAX = 0xFFFF
"""Far above any record, so that a length read from garbage is soon seen to be garbage."""

READ_BYTES = 256 * 1024
FRAME_START = re.compile(rb"(?=..\0\0....)", re.DOTALL)
"""Where a frame could begin: a length below 64 KiB has two zero bytes on top."""


class Frame(msgspec.Struct, frozen=True):
    """One whole frame whose checksum holds: its body, and where it begins and ends in the file."""

    position: int
    end: int
    body: bytes


class Tail(enum.Enum):
    """What stands behind the last whole frame."""

    CLEAN = "clean"
    """Nothing, or reserved room."""
    TORN = "torn"
    """A write that the machine did not finish; nothing whole follows it, so nothing acknowledged is lost."""
    CORRUPT = "corrupt"
    """Damage with whole frames behind it: records that were acknowledged cannot be trusted."""


def header(boot_id: bytes, part: int) -> bytes:
    """Make the first bytes of a journal file: which boot of which process wrote it, and its number there."""
    start = struct.pack("<8sII16s", MAGIC, VERSION, part, boot_id)
    return start + struct.pack("<I", zlib.crc32(start))


def frame(body: bytes) -> bytes:
    """Wrap one body for the file; raises ValueError for an empty or oversized one."""
    if not 0 < len(body) <= BODY_BYTES_MAX:
        raise ValueError(f"a journal frame holds 1 to {BODY_BYTES_MAX} bytes, not {len(body)}")
    return FRAME.pack(len(body), zlib.crc32(body)) + body


def journal_name(boot_id: bytes, part: int) -> str:
    """Name a journal file for people and for the cursor in Postgres; unique across hosts and boots."""
    return f"{boot_id.hex()}-{part:04d}"


def read_name(path: Path) -> str | None:
    """Read which journal a file is; None for one that a crash left without a single byte of content.

    Raises JournalUnreadable for a file of another kind, a damaged header, or a format version this
    release does not know.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if not start.strip(b"\0"):
        return None
    if len(start) < HEADER_BYTES or not start.startswith(MAGIC):
        raise JournalUnreadable(f"{path} does not begin as a Penstock journal does")
    _, version, part, boot_id, checksum = HEADER.unpack(start)
    if version not in READABLE:
        raise JournalUnknownVersion(
            f"{path} has journal format {version}, this release reads up to {VERSION}; a newer will ship it"
        )
    if checksum != zlib.crc32(start[:-4]):
        raise JournalUnreadable(f"{path} has a damaged header")
    return journal_name(boot_id, part)


def frames(path: Path, offset: int = 0, until: int | None = None) -> Iterator[Frame]:
    """Yield the whole frames from `offset` (a frame's beginning, or 0) on, up to the first that is not whole.

    `until` bounds the reading to the bytes that a living writer is known to have finished. What stopped
    the reading is for `judge` to say.
    """
    position = max(offset, HEADER_BYTES)
    with path.open("rb") as file:
        while True:
            file.seek(position)
            data = file.read(READ_BYTES if until is None else min(READ_BYTES, max(0, until - position)))
            start = 0
            while (found := frame_at(data, start)) is not None:
                yield Frame(position + start, position + start + FRAME.size + len(found), found)
                start += FRAME.size + len(found)
            if start == 0:
                return
            position += start


def anywhere(path: Path) -> Iterator[bytes]:
    """Yield the body of every whole frame of a file, also behind damage: what was surely written, once.

    For telling what is there, not for shipping: nothing behind damage can be relied on to be all of it.
    """
    end = 0
    for found in frames(path):
        end = found.end
        yield found.body
    yield from _strewn(path, end)


def frame_at(data: bytes, start: int) -> bytes | None:
    """Take the body of the whole frame that begins at `start`, if there is one."""
    if start + FRAME.size > len(data):
        return None
    length, checksum = FRAME.unpack_from(data, start)
    begin = start + FRAME.size
    # A length of 0 is reserved room: its checksum, 0, would otherwise hold.
    if not 0 < length <= BODY_BYTES_MAX or begin + length > len(data):
        return None
    body = data[begin : begin + length]
    return body if zlib.crc32(body) == checksum else None


def judge(path: Path, position: int) -> Tail:
    """Say what stands from `position` on, where `frames` stopped in a file whose writer is gone.

    It takes a whole frame behind the damage to tell damage from a torn last write, so every place where
    one could begin is tried.
    """
    with path.open("rb") as file:
        file.seek(max(position, HEADER_BYTES))
        content = file.read().rstrip(b"\0")
    if not content:
        return Tail.CLEAN
    return Tail.TORN if next(_strewn(path, position), None) is None else Tail.CORRUPT


def _strewn(path: Path, position: int) -> Iterator[bytes]:
    """Yield the whole frames that begin at any place from `position` on."""
    with path.open("rb") as file:
        file.seek(max(position, HEADER_BYTES))
        data = file.read()
    content_bytes = len(data.rstrip(b"\0"))
    past = 0
    for place in FRAME_START.finditer(data):
        if place.start() >= content_bytes:
            return
        if place.start() >= past and (body := frame_at(data, place.start())) is not None:
            past = place.start() + FRAME.size + len(body)
            yield body
