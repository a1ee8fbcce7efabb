"""Identifiers: time-ordered 16-byte ids for rows, short random text for what people see."""

from __future__ import annotations

import os
import secrets
import time

ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"
"""Lower case without l and o, which are read as 1 and 0."""


def uuid7_bytes(unix_ms: int | None = None) -> bytes:
    """Make a UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    tail = bytearray(os.urandom(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return ms.to_bytes(6, "big") + bytes(tail)


def random_text(length: int) -> str:
    """Pick `length` random characters of the id alphabet, five bits each, from the system's secure source."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
