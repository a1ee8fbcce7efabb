"""Identifiers: time-ordered 16-byte ids for rows, short random text for what people see."""

from __future__ import annotations

import os
import re
import secrets
import time

ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"
"""Lower case without l and o, which are read as 1 and 0."""

UUID7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")
UNIX_MS_MAX = 4_102_444_800_000


def uuid7_bytes(unix_ms: int | None = None) -> bytes:
    """Make a UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    tail = bytearray(os.urandom(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return ms.to_bytes(6, "big") + bytes(tail)


def uuid7_unix_ms(text: str) -> int | None:
    """Read the Unix milliseconds out of a UUID version 7 in 32 hexadecimal digits; None for anything else.

    None too for what is later than the year 2100, which no clock of ours has told.
    """
    if not UUID7.fullmatch(text):
        return None
    unix_ms = int(text[:12], 16)
    return unix_ms if unix_ms <= UNIX_MS_MAX else None


def random_text(length: int) -> str:
    """Pick `length` random characters of the id alphabet, five bits each, from the system's secure source."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
