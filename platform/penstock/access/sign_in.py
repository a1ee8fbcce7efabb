"""The door: an address and a password, then a code where one is asked for, never faster than is healthy."""

from __future__ import annotations

import hmac

import asyncpg
import msgspec

from penstock.access import people, sealing, sessions, sign_in_limits
from penstock.access.people import Person
from penstock.access.second_factor import SecondFactors
from penstock.access.sign_in_limits import ACCOUNT, ADDRESS, CODE, DEVICE, PAIR, PASSWORD
from penstock_base import ids

DEVICE_PURPOSE = "known browsers"
NONCE_LENGTH = 20


class WrongPassword(Exception):
    """This address and password do not belong together; which of them is wrong is not said."""


class HalfOver(Exception):
    """The password was given too long ago: it must be given again."""


class Knock(msgspec.Struct, frozen=True):
    """Somebody at the door."""

    email: str
    password: str
    address: str
    """Of their machine."""
    device: str = ""
    """What their browser keeps since it was signed in to an account (see `Door.device`)."""


class Door:
    """Lets people in."""

    def __init__(self, pool: asyncpg.Pool, pepper: bytes) -> None:
        self._pool = pool
        self._device_key = sealing.derive(pepper, DEVICE_PURPOSE)
        self.second_factors = SecondFactors(pool, pepper)

    async def knock(self, knock: Knock) -> Person:
        """Who it is, by their password; raises WrongPassword, TooManyTries, Busy."""
        taken = self._buckets(knock)
        for rule, subject in taken:
            await sign_in_limits.take(self._pool, rule, subject)
        person = await people.recognise(self._pool, knock.email, knock.password)
        if person is None:
            raise WrongPassword("this address and password do not belong together")
        for rule, subject in taken:
            if rule in {PAIR, DEVICE}:
                await sign_in_limits.forgive(self._pool, rule, subject)
            else:
                # Only this try: the wrong ones of others, from here or for this account, stay counted.
                await sign_in_limits.give_back(self._pool, rule, subject)
        await sign_in_limits.sweep(self._pool)
        return person

    async def needs_code(self, person: Person) -> bool:
        """Whether this person has a second factor."""
        return (await self.second_factors.standing(person.id)).on

    async def code(self, half: str, text: str) -> Person:
        """The person who gave the password before and the code now; the half sign-in is over then.

        Raises HalfOver, TooManyTries, WrongCode, UsedCode, Unreadable.
        """
        person = await sessions.half_person(self._pool, half)
        if person is None:
            raise HalfOver("the password was given too long ago")
        await sign_in_limits.take(self._pool, CODE, str(person.id))
        await self.second_factors.verify(person.id, text)
        await sign_in_limits.forgive(self._pool, CODE, str(person.id))
        await sessions.end_half(self._pool, half)
        return person

    async def ask_password(self, person: Person, password: str) -> None:
        """Make sure that who is signed in is still at the keys; raises WrongPassword, TooManyTries, Busy."""
        await sign_in_limits.take(self._pool, PASSWORD, str(person.id))
        if await people.recognise(self._pool, person.email, password) is None:
            raise WrongPassword("this is not your password")
        await sign_in_limits.forgive(self._pool, PASSWORD, str(person.id))

    async def ask_code(self, person: Person, text: str) -> list[str]:
        """Confirm a second factor, no faster than codes are taken elsewhere; see SecondFactors.confirm."""
        await sign_in_limits.take(self._pool, CODE, str(person.id))
        codes = await self.second_factors.confirm(person, text)
        await sign_in_limits.forgive(self._pool, CODE, str(person.id))
        return codes

    def device(self, email: str) -> str:
        """What a browser keeps that was signed in to an account: it opens nothing, strangers only cannot
        use up its tries.
        """
        nonce = ids.random_text(NONCE_LENGTH)
        return f"{nonce}.{self._sign(nonce, email)}"

    def _buckets(self, knock: Knock) -> list[tuple[sign_in_limits.Rule, str]]:
        account = knock.email.strip().lower()
        nonce, _, signature = knock.device.partition(".")
        if hmac.compare_digest(signature.encode(), self._sign(nonce, account).encode()):
            return [(DEVICE, nonce)]
        network = sign_in_limits.network(knock.address)
        return [(ADDRESS, network), (PAIR, f"{network} {account}"), (ACCOUNT, account)]

    def _sign(self, nonce: str, email: str) -> str:
        return sealing.digest(self._device_key, f"{nonce} {email.strip().lower()}").hex()
