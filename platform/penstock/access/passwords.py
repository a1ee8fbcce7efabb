"""Passwords: hashed and verified off the event loop, a few at a time; which are taken, and random ones."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

from penstock_base import ids

T = TypeVar("T")

LENGTH_MIN, LENGTH_MAX = 12, 256
"""Characters; length is what counts (NIST SP 800-63B, 3.1.1.2), and a bound keeps hashing cheap."""
DISTINCT_MIN = 5
"""Different characters: `aaaaaaaaaaaa` is long and no secret."""
WORDS = re.compile(
    r"(?:password|passwort|motdepasse|contrase|qwert[yz]|azerty|letmein|welcome|iloveyou|admin(?:istrator)?"
    r"|changeme|penstock|secret|default|monkey|dragon|football|baseball|sunshine|princess|asdf(?:ghjkl)?)"
)
"""What guessers try first; a password that is these and digits is refused (3.1.1.2, point 4)."""
NO_LETTERS = re.compile(r"[\W\d_]+")
PART_MIN = 3
AT_ONCE = 2
"""Each verification takes 64 MiB and some 50 ms of a core, whoever asks."""
WAITING_MAX = 40
RANDOM_GROUPS, RANDOM_GROUP = 4, 5
"""100 bits, in groups that people can copy."""


class WeakPassword(Exception):
    """The password is too short, too long, or among the first that are guessed."""

    field = "password"


class Busy(Exception):
    """So many passwords wait to be verified that one more would wait too long."""


class _Hashers:
    """The threads that hash: so few that a flood of passwords takes little from requests to models."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0

    async def do(self, work: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= WAITING_MAX:
            raise Busy("very many people are signing in just now; try again in a few seconds")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1


_argon2 = argon2.PasswordHasher()
_hashers = _Hashers()


def check(password: str, *personal: str) -> None:
    """Raise WeakPassword, with a sentence for its owner; `personal` are their address and name."""
    if len(password) < LENGTH_MIN:
        raise WeakPassword(f"use at least {LENGTH_MIN} characters: a few words in a row do well")
    if len(password) > LENGTH_MAX:
        raise WeakPassword(f"use at most {LENGTH_MAX} characters")
    if len(set(password)) < DISTINCT_MIN:
        raise WeakPassword("this is the same few characters again and again, which is guessed early")
    left = re.sub(NO_LETTERS, "", password.lower())
    for part in sorted({part for text in personal for part in _parts(text)}, key=len, reverse=True):
        left = left.replace(part, "")
    if not re.sub(WORDS, "", left):
        raise WeakPassword("this is among the first passwords that are guessed: add words that only you know")


async def hash_new(password: str, *personal: str) -> str:
    """Hash a new password as it is stored; raises WeakPassword, Busy."""
    check(password, *personal)
    return await _hashers.do(_argon2.hash, password)


async def hash_again(password: str) -> str:
    """Hash one that was just verified, whatever was asked of passwords when it was set."""
    return await _hashers.do(_argon2.hash, password)


async def verify(stored: str | None, password: str) -> bool:
    """Whether this is the password; without one stored it takes as long and is not. Raises Busy."""
    return await _hashers.do(_verify, stored or "", password)


def is_dated(stored: str) -> bool:
    """Whether it was hashed at other costs than today's."""
    return _argon2.check_needs_rehash(stored)


def random() -> str:
    """Make a password that is shown once and copied."""
    return "-".join(ids.random_text(RANDOM_GROUP) for _ in range(RANDOM_GROUPS))


def _parts(text: str) -> list[str]:
    """The words of an address or name that its owner might use, without what is short."""
    parts = (
        re.sub(NO_LETTERS, "", part)
        for part in (text.partition("@")[0].lower(), *re.split(r"[\W_]", text.lower()))
    )
    return [part for part in parts if len(part) >= PART_MIN]


@functools.cache
def _nobodys() -> str:
    """Verified where there is no such account, so that both answers take the same time."""
    return _argon2.hash(ids.random_text(20))


def _verify(stored: str, password: str) -> bool:
    nobodys = _nobodys()
    # An overlong one is none of ours, and costs no more than others.
    known = stored != "" and len(password) <= LENGTH_MAX
    try:
        return _argon2.verify(stored if known else nobodys, password[:LENGTH_MAX]) and known
    except argon2.exceptions.VerifyMismatchError:
        return False
