"""What makes two requests the same one: the headers that say so, and the hashes that are compared.

`Idempotency-Key` follows the IETF draft "The Idempotency-Key HTTP Header Field" (httpapi working group, 06).
It is the client's promise, so it is kept for a day and never risked. The ids that SDKs repeat when they try
again by themselves (`repeatability-request-id` of OASIS Repeatable Requests, `x-ms-client-request-id` of
Azure's SDKs) are hints: people do reuse them, so the body belongs to their identity, and they are kept for
minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from penstock.access.keyring import Principal
from penstock.admission.idempotency.errors import InvalidKey

KEY = b"idempotency-key"
RETRY_IDS = (b"repeatability-request-id", b"x-ms-client-request-id")
"""Ids that SDKs repeat; the first one that is present counts."""
HEADERS = frozenset({KEY, *RETRY_IDS})
"""Headers that make a request one that may be sent again, in lower case."""

KEPT = timedelta(hours=24)
"""How long an Idempotency-Key stands for its request, from its claim and again from its answer."""
RETRY_ID_KEPT = timedelta(minutes=10)
"""The same for an SDK's id, from the answer: longer than any SDK goes on trying."""

VISIBLE = re.compile(rb"[\x21-\x7e]{1,255}")
RETRY_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")


class Repeatable(msgspec.Struct, frozen=True):
    """What a request says about being sent again."""

    header: bytes
    value: bytes

    @property
    def promised(self) -> bool:
        """Whether it is an Idempotency-Key, not just an SDK's id."""
        return self.header == KEY

    @property
    def kept(self) -> timedelta:
        """How long the answer is kept."""
        return KEPT if self.promised else RETRY_ID_KEPT


class Identity(msgspec.Struct, frozen=True):
    """Which claim a request is about, and what it must be like."""

    claim_id: bytes
    fingerprint: bytes


def read(headers: Sequence[tuple[bytes, bytes]]) -> Repeatable | None:
    """Find what stands for the request among its headers (of HEADERS).

    An Idempotency-Key wins over SDK ids. Raises InvalidKey for one that cannot be a key, or two of them; an
    SDK's id that makes no sense is no id.
    """
    keys = [value for name, value in headers if name == KEY]
    if len(keys) > 1:
        raise InvalidKey("Idempotency-Key is there more than once: send one")
    if keys:
        return Repeatable(KEY, _unquoted(keys[0]))
    given = dict(headers)
    for name in RETRY_IDS:
        if RETRY_ID.fullmatch(given.get(name, b"")):
            return Repeatable(name, given[name])
    return None


def identify(
    pepper: bytes, principal: Principal, repeatable: Repeatable, method: str, target: bytes, body: bytes
) -> Identity:
    """Hash a request. `target` is the path with its query, as it came.

    A copied database tells nobody which keys were used, nor lets a guess be checked: that takes the pepper.
    """
    fingerprint = hashlib.sha256(msgspec.msgpack.encode((method, target, body))).digest()
    scope = (
        principal.organisation_id,
        principal.project_id,
        principal.key_id,
        *(method, target),
        *(repeatable.header, repeatable.value),
        b"" if repeatable.promised else fingerprint,
    )
    return Identity(hmac.digest(pepper, msgspec.msgpack.encode(scope), hashlib.sha256), fingerprint)


def _unquoted(value: bytes) -> bytes:
    """The key itself: the draft writes it as a quoted string, most clients write it bare."""
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        value = value[1:-1]
    if not VISIBLE.fullmatch(value):
        raise InvalidKey(
            "Idempotency-Key must be 1 to 255 visible ASCII characters without spaces; "
            "a random UUID is a good one"
        )
    return value
