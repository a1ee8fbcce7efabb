"""What every routing policy is given and gives: pure functions over engines and hints of a request."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec


class Candidate(Protocol):
    """An engine as a policy sees it."""

    @property
    def id(self) -> str:
        """Its name; stable for as long as it lives."""

    @property
    def load(self) -> float:
        """Tokens it still has to work on for this gateway, as far as is known."""

    @property
    def capacity(self) -> float:
        """How much it can work on at once, in whatever unit all engines of the pool share."""


Choice = TypeVar("Choice", bound=Candidate)


class Hint(msgspec.Struct, frozen=True):
    """What of a request may steer it."""

    prefix: bytes | None = None
    """A digest of what its prompt begins with, and whose it is."""
    session: bytes | None = None
    """What the client says that belongs together."""
    adapter: bytes | None = None
    """The adapter it is for: loading one takes longer than anything else that an engine could remember."""


ANYWHERE = Hint()
"""Of a request that belongs nowhere in particular."""


class Policy(Protocol):
    """Choose among at least one candidate."""

    def __call__(self, candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:
        """Pick one."""


def pressure(candidate: Candidate) -> float:
    """How full an engine is, so that large and small ones compare."""
    return candidate.load / candidate.capacity
