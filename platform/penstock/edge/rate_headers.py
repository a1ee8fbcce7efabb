"""What is left of a client's limits, in the headers that OpenAI's API has."""

from __future__ import annotations

import math

from penstock.admission.rates import REQUESTS, TOKENS, Room

NAMES = {REQUESTS: b"requests", TOKENS: b"tokens"}


def headers(rooms: dict[str, Room]) -> list[tuple[bytes, bytes]]:
    """Limit, remaining and reset of requests and of tokens; nothing for what is not limited."""
    return [
        (b"x-ratelimit-%b-%b" % (what, NAMES[limit]), value)
        for limit, room in rooms.items()
        for what, value in (
            (b"limit", b"%d" % room.most),
            (b"remaining", b"%d" % room.remaining),
            (b"reset", duration(room.reset_s)),
        )
    ]


def duration(seconds: float) -> bytes:
    """Write a duration as OpenAI does: `45s`, `1m30s`; whole seconds, never too few."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
