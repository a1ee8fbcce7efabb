"""The keyring against a real database: let in, keep out, forget what was revoked."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from penstock.access import keys
from penstock.access.keyring import InvalidKey, Keyring, KeysUnavailable

PEPPER = b"p" * 32


async def make(pool: asyncpg.Pool, organisation: str = "acme") -> str:
    async with pool.acquire() as connection:
        return await keys.create(connection, PEPPER, name="test", organisation=organisation)


async def test_a_key_is_let_in_as_soon_as_it_is_made(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    await ring.refresh()
    key = await make(database)
    principal = await ring.authenticate(key)
    assert principal.key_id in key


async def test_keys_of_two_organisations_are_two_tenants(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    one = await ring.authenticate(await make(database, "one"))
    two = await ring.authenticate(await make(database, "two"))
    assert one.organisation_id != two.organisation_id


async def test_a_revoked_key_is_out_after_one_refresh(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    key = await make(database)
    principal = await ring.authenticate(key)
    async with database.acquire() as connection:
        await keys.revoke(connection, principal.organisation_id, principal.key_id)
    await ring.refresh()
    with pytest.raises(InvalidKey):
        await ring.authenticate(key)


async def test_the_right_id_with_another_secret_is_refused(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    parsed = keys.parse(await make(database))
    assert parsed is not None
    forged = "x" * keys.SECRET_LENGTH
    with pytest.raises(InvalidKey):
        await ring.authenticate(f"{keys.PREFIX}{parsed.id}-{forged}{keys._check(parsed.id, forged)}")


async def test_another_pepper_opens_nothing(database: asyncpg.Pool) -> None:
    key = await make(database)
    with pytest.raises(InvalidKey):
        await Keyring(database, b"q" * 32).authenticate(key)


async def test_an_unknown_key_asks_the_database_once(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    key_id, secret = "a" * keys.ID_LENGTH, "b" * keys.SECRET_LENGTH
    key = f"{keys.PREFIX}{key_id}-{secret}{keys._check(key_id, secret)}"
    for _ in range(3):
        with pytest.raises(InvalidKey):
            await ring.authenticate(key)
    assert ring._missing == {key_id}


async def test_a_known_key_needs_no_database_and_a_new_one_is_told_to_wait(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    known, unseen = await make(database), await make(database)
    principal = await ring.authenticate(known)
    await database.close()
    assert await ring.authenticate(known) == principal
    with pytest.raises(KeysUnavailable):
        await ring.authenticate(unseen)


async def test_many_requests_with_one_new_key_ask_once(database: asyncpg.Pool) -> None:
    ring = Keyring(database, PEPPER)
    key = await make(database)
    found = await asyncio.gather(*(ring.authenticate(key) for _ in range(50)))
    assert len(set(found)) == 1


async def test_no_secret_is_in_the_database(database: asyncpg.Pool) -> None:
    key = await make(database)
    parsed = keys.parse(key)
    assert parsed is not None
    rows = await database.fetch("select api_key::text as row from access.api_key")
    assert rows
    assert not any(parsed.secret.decode() in row["row"] for row in rows)
