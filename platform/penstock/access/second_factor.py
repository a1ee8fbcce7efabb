"""A second factor: codes that change every 30 seconds (TOTP, RFC 6238), and others for a lost device."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import cast

import asyncpg
import msgspec
import pyotp

from penstock.access import sealing
from penstock.access.people import Person
from penstock.access.sealing import Seal, Unreadable
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "second_factor.sql")

ISSUER = "Penstock"
STEP_S = 30
STEPS_AROUND = (0, -1, 1)
"""A clock may be one step off, and a code takes its time to be typed (RFC 6238, 5.2)."""
RECOVERY_CODES = 10
RECOVERY_GROUP = 6
"""A code has two such groups: 60 bits, kept under a keyed digest."""
PURPOSE, RECOVERY_PURPOSE = "second factor", "recovery codes"
DIGITS = re.compile(r"\d{6}")


class SecondFactorError(Exception):
    """What cannot be done about a second factor; the message says what can."""


class AlreadyOn(SecondFactorError):
    """There is one, and it must go before another comes."""


class WrongCode(SecondFactorError):
    """The code is not one that is good now."""


class UsedCode(WrongCode):
    """The code was right, and was used before."""


class Standing(msgspec.Struct, frozen=True):
    """What a person has."""

    confirmed_at: datetime | None
    """None: no code is asked for."""
    recovery_codes: int
    """How many are left."""

    @property
    def on(self) -> bool:
        """Whether signing in asks for a code."""
        return self.confirmed_at is not None


class Setup(msgspec.Struct, frozen=True):
    """What an app is told once, to make codes."""

    secret: str
    """Base 32, to be typed where nothing can be scanned."""
    address: str
    """The `otpauth:` address that the QR code holds."""


class SecondFactors:
    """Begins, confirms, verifies and removes them."""

    def __init__(self, pool: asyncpg.Pool, pepper: bytes) -> None:
        self._pool = pool
        self._seal = Seal(pepper, PURPOSE)
        self._recovery_key = sealing.derive(pepper, RECOVERY_PURPOSE)

    async def standing(self, person_id: int) -> Standing:
        """What a person has."""
        row = await self._pool.fetchrow(SQL["standing"], person_id)
        assert row is not None, "the question always has one answer"
        return Standing(row["confirmed_at"], row["recovery_codes"])

    async def begin(self, person: Person) -> None:
        """Draw a secret that nothing is asked of yet; one that was begun before is forgotten.

        Raises AlreadyOn.
        """
        sealed = self._seal.close(pyotp.random_base32().encode(), _owner(person.id))
        if await self._pool.fetchval(SQL["begin"], person.id, sealed) is None:
            raise AlreadyOn("you have a second factor: remove it before you set up another")

    async def setup(self, person: Person) -> Setup | None:
        """What an app must be told of the one that was begun; None when there is none to confirm."""
        row = await self._pool.fetchrow(SQL["secret"], person.id)
        if row is None or row["confirmed_at"] is not None:
            return None
        try:
            secret = self._open(person.id, row["sealed_secret"])
        except Unreadable:
            return None
        address = pyotp.TOTP(secret).provisioning_uri(name=person.email, issuer_name=ISSUER)
        return Setup(secret, address)

    async def confirm(self, person: Person, code: str, now_s: float | None = None) -> list[str]:
        """Turn it on with a first code; the recovery codes, which cannot be had again.

        Raises WrongCode, AlreadyOn.
        """
        row = await self._pool.fetchrow(SQL["secret"], person.id)
        if row is None:
            raise WrongCode("there is nothing to confirm: begin again")
        if row["confirmed_at"] is not None:
            raise AlreadyOn("your second factor is on already")
        step = _step_of(self._open(person.id, row["sealed_secret"]), code, now_s)
        async with self._pool.acquire() as taken, taken.transaction():
            connection = cast("asyncpg.Connection", taken)
            # Of two tabs that confirm at once one shows its codes.
            if await connection.fetchval(SQL["confirm"], person.id, step, row["sealed_secret"]) is None:
                raise AlreadyOn("your second factor is on already, or was begun again in another tab")
            return await self._draw(connection, person.id)

    async def verify(self, person_id: int, text: str, now_s: float | None = None) -> None:
        """Take a code, or a recovery code; raises WrongCode, UsedCode, Unreadable. No code is taken twice."""
        row = await self._pool.fetchrow(SQL["secret"], person_id)
        code = re.sub(r"[\s-]", "", text)
        if row is None or row["confirmed_at"] is None or not code.isascii():
            raise WrongCode("this code is not right")
        if not DIGITS.fullmatch(code):
            await self._use(person_id, code)
            return
        step = _step_of(self._open(person_id, row["sealed_secret"]), code, now_s)
        if await self._pool.fetchval(SQL["use_step"], person_id, step) is None:
            raise UsedCode("this code was used already: wait for the next one, which comes within 30 seconds")

    async def renew(self, person_id: int) -> list[str]:
        """Ten new recovery codes; those there were are worth nothing any more."""
        async with self._pool.acquire() as taken, taken.transaction():
            connection = cast("asyncpg.Connection", taken)
            return await self._draw(connection, person_id)

    async def remove(self, person_id: int) -> None:
        """Ask for no code any more."""
        await remove(self._pool, person_id)

    async def _use(self, person_id: int, code: str) -> None:
        if await self._pool.fetchval(SQL["use_recovery_code"], person_id, self._digest(code)) is None:
            raise WrongCode("this recovery code is not right, or was used already")

    async def _draw(self, connection: asyncpg.Connection, person_id: int) -> list[str]:
        codes = [ids.random_text(2 * RECOVERY_GROUP) for _ in range(RECOVERY_CODES)]
        await connection.execute(SQL["put_recovery_codes"], person_id, [self._digest(code) for code in codes])
        return [f"{code[:RECOVERY_GROUP]}-{code[RECOVERY_GROUP:]}" for code in codes]

    def _open(self, person_id: int, sealed: bytes) -> str:
        return self._seal.open(sealed, _owner(person_id)).decode()

    def _digest(self, code: str) -> bytes:
        return sealing.digest(self._recovery_key, code.lower())


async def remove(connection: asyncpg.Connection | asyncpg.Pool, person_id: int) -> None:
    """Forget a second factor and its recovery codes."""
    await connection.execute(SQL["remove"], person_id)


def _step_of(secret: str, code: str, now_s: float | None) -> int:
    """The step that a code belongs to; raises WrongCode."""
    now = int(time.time() if now_s is None else now_s) // STEP_S
    code = re.sub(r"\s", "", code)
    if DIGITS.fullmatch(code) and code.isascii():
        totp = pyotp.TOTP(secret)
        for around in STEPS_AROUND:
            if pyotp.utils.strings_equal(totp.generate_otp(now + around), code):
                return now + around
    raise WrongCode("this code is not right: enter the six digits that the app shows now")


def _owner(person_id: int) -> bytes:
    return b"person %d" % person_id
