"""Keeping together what belongs together, without letting one engine drown.

Every engine has a place in an order that follows from the key alone (rendezvous hashing: Thaler and
Ravishankar, 1998), so that all gateways agree without talking, and an engine that comes or goes moves only
its own keys. The first in the order takes the request unless it is fuller than its fair share allows
(consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018); then the next one does.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from penstock.routing import power_of_two
from penstock.routing.policy import Candidate, Choice, Hint, pressure

BALANCE = 1.25
"""How much fuller than the average an engine may be and still be preferred."""
SLACK = 0.1
"""And how full it may be in any case: on an idle pool, averages say nothing."""


def by_prefix(candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:
    """Pick the engine whose cache has the prompt's beginning."""
    return prefer(candidates, hint.prefix, hint, dice)


def by_session(candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:
    """Pick the engine of the session; without a session, that of the prompt's beginning."""
    return prefer(candidates, hint.session or hint.prefix, hint, dice)


def by_adapter(candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:
    """Pick the engine that has the adapter: all gateways send it to the same one, unless it is too full."""
    return prefer(candidates, hint.adapter, hint, dice)


def prefer(candidates: Sequence[Choice], key: bytes | None, hint: Hint, dice: random.Random) -> Choice:
    """Pick the first engine in the key's order that is not too full; without a key, any that is less full."""
    if key is None:
        return power_of_two.choose(candidates, hint, dice)
    average = sum(pressure(each) for each in candidates) / len(candidates)
    most = max(SLACK, average * BALANCE)
    ordered = sorted(candidates, key=lambda each: rank(key, each), reverse=True)
    return next((each for each in ordered if pressure(each) <= most), ordered[0])


def rank(key: bytes, candidate: Candidate) -> bytes:
    """An engine's place in a key's order: the highest is first."""
    return hashlib.blake2b(candidate.id.encode(), key=key[:64], digest_size=8).digest()
