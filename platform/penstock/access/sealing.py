"""Secrets that must be read again: kept in Postgres under keys that are derived from the pepper.

A copied database opens nothing: the pepper is never in it (see settings).
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES, NONCE_BYTES = 32, 12
VERSION = b"\x01"
"""AES-256-GCM under an HKDF-SHA256 key, with a random nonce of 96 bits before the text."""


class Unreadable(Exception):
    """It was sealed under another pepper, for somebody else, or is damaged."""


class Seal:
    """Seals texts for one purpose; what was sealed for another cannot be read with it."""

    def __init__(self, pepper: bytes, purpose: str) -> None:
        self._key = derive(pepper, purpose)

    def close(self, text: bytes, bound_to: bytes) -> bytes:
        """Seal a text for whoever it belongs to."""
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + nonce + AESGCM(self._key).encrypt(nonce, text, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Read it again; raises Unreadable."""
        nonce, text = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        if sealed[:1] != VERSION:
            raise Unreadable("this was sealed in a way that is not known here")
        try:
            return AESGCM(self._key).decrypt(nonce, text, bound_to)
        except (InvalidTag, ValueError):
            raise Unreadable("the pepper of this installation is another than when this was sealed") from None


def derive(pepper: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose (RFC 5869)."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=f"penstock {purpose}".encode()).derive(pepper)


def digest(key: bytes, text: str) -> bytes:
    """A keyed digest of something short, which without the key cannot be found by trying."""
    return hmac.digest(key, text.encode(), hashlib.sha256)
