"""No change without an entry: over every table that people's doings change, whoever makes the change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from penstock.access import invitations, issuing, keys, limits, members, people, plans, projects
from penstock.access.audit import actor, entries
from penstock.access.audit.actor import ActorKind
from penstock.access.audit.entries import FIRST, Asked, Entry
from penstock.access.issuing import Wanted
from penstock.access.limits import RateLimits
from penstock.access.roles import Role
from penstock_base import database as connections
from penstock_billing import ledger
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind

PEPPER = b"p" * 32
NOT_LOGGED = {
    # Facts and sums of the token path, which are their own record.
    "billing.usage_event": "each request is its own record",
    "billing.usage_minute": "sums of events",
    "billing.usage_hour": "sums of events",
    "billing.usage_day": "sums of events",
    "billing.earned_hour": "sums of events",
    "billing.spend_month": "sums of events",
    "billing.speed_day": "measured",
    "billing.credit_day": "sums of entries",
    "billing.credit_day_mark": "how far they are made",
    "billing.roll_up_mark": "how far sums are made",
    "billing.journal_cursor": "the shipper's memory",
    "billing.rejected_frame": "set aside by the shipper",
    "billing.unrecorded_request": "told by gateways",
    "billing.account": "sums of entries",
    "billing.account_kind": "the ledger's words",
    "billing.entry": "logged with their transaction",
    "billing.refund": "logged with their transaction",
    "billing.lease": "lent and given back by gateways",
    "billing.gateway_boot": "which gateways ran",
    "billing.budget_alert": "raised by spending",
    "billing.running_interval": "told by controllers",
    "billing.minute_charge": "each charge is its own record",
    "billing.archive": "which days are in files",
    "billing.archived_events": "which days are in files",
    "billing.reconcile_run": "each run is its own record",
    # What runs where, told every second.
    "engines.replica": "state",
    "engines.load": "state",
    "engines.counter": "state",
    "engines.hardware": "state",
    "engines.start": "measured",
    "engines.scaling": "each decision is its own record",
    "admission.claim": "requests that may be sent again",
    "access.session": "who is signed in where",
    "access.half_sign_in": "who is about to sign in",
    "access.sign_in_limit": "who tries to",
    "access.recovery_code": "made and used with a second factor",
    "access.audit_entry": "the log itself",
    "penstock.migration": "the schema's own history",
}
"""Every other table has the trigger; a new one belongs here with its reason, or in a new file of the room."""


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections as a gateway has them."""
    pool = await connections.pool(database_url, "gateway", size_max=3, command_timeout_s=10, setup=actor.tell)
    yield pool
    await pool.close()


async def log(pool: asyncpg.Pool, organisation_id: int | None = None) -> list[Entry]:
    return await entries.page(pool, Asked(organisation_id=organisation_id), FIRST, 200)


async def make_organisation(pool: asyncpg.Pool, name: str = "acme") -> int:
    async with pool.acquire() as connection:
        await keys.create(connection, PEPPER, name="first", organisation=name)
        return await keys.find_organisation(connection, name)


async def test_every_table_is_watched_or_has_a_reason_not_to_be(database: asyncpg.Pool) -> None:
    rows = await database.fetch(
        """
        select format('%s.%s', nspname, relname) as name,
               exists (select from pg_trigger where tgrelid = pg_class.oid and tgname = 'audited') as watched
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('r', 'p') and not relispartition and nspname not like 'pg\\_%'
          and nspname <> 'information_schema'
        """
    )
    watched = {row["name"] for row in rows if row["watched"]}
    unwatched = {row["name"] for row in rows if not row["watched"]}
    assert unwatched - set(NOT_LOGGED) == set(), "watch these in penstock/access/audit/migrations"
    assert watched & set(NOT_LOGGED) == set()
    assert "access.api_key" in watched
    assert "billing.ledger_transaction" in watched


async def test_a_change_to_any_column_that_is_no_noise_makes_an_entry(database: asyncpg.Pool) -> None:
    """Changes each column of each watched table, of a row that is there, and counts the log."""
    async with database.acquire() as connection:
        await fill(connection)
        tables = await connection.fetch(
            """
            select tgrelid::regclass::text as name, tgargs from pg_trigger
            where tgname = 'audited' and tgrelid <> 'billing.ledger_transaction'::regclass
            """
        )
        assert len(tables) > 15
        tried = 0
        for table in tables:
            name, noise = table["name"], table["tgargs"].split(b"\0")[3].decode().split(" ")
            assert await connection.fetchval(f"select count(*) from {name}"), f"{name} has no row to change"
            append_only = await connection.fetchval(
                "select exists (select from pg_trigger "
                "where tgrelid = $1::regclass and tgname = 'append_only')",
                name,
            )
            columns = await connection.fetch(
                "select attname as name, format_type(atttypid, null) as type from pg_attribute "
                "where attrelid = $1::regclass and attnum > 0 and not attisdropped and attidentity = ''",
                name,
            )
            for column in columns:
                another = ANOTHER.get(column["type"])
                # Append-only tables refuse changes, which is more than is asked of them here.
                if column["name"] in noise or append_only or another is None:
                    continue
                before = await connection.fetchval("select count(*) from access.audit_entry")
                transaction = connection.transaction()
                await transaction.start()
                try:
                    field = f'"{column["name"]}"'
                    changed = await connection.execute(
                        f"update {name} set {field} = {another.format(field)} "
                        f"where ctid = (select ctid from {name} limit 1)"
                    )
                    after = await connection.fetchval("select count(*) from access.audit_entry")
                    assert changed == "UPDATE 1"
                    assert after > before, f"{name}.{column['name']} changed and nothing was noted"
                    tried += 1
                except asyncpg.IntegrityConstraintViolationError:
                    pass  # no other value was to be had for this column
                finally:
                    await transaction.rollback()
        assert tried > 40


ANOTHER = {
    "text": "coalesce({0}, '') || 'x'",
    "bigint": "coalesce({0}, 0) + 1",
    "integer": "coalesce({0}, 0) + 1",
    "double precision": "coalesce({0}, 0) + 1",
    "boolean": "not coalesce({0}, false)",
    "jsonb": "'{{\"requests_per_minute\": 77}}'::jsonb",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 s'",
    "bytea": "coalesce({0}, '') || 'x'::bytea",
    "text[]": "coalesce({0}, array[]::text[]) || array['x']",
    "integer[]": "coalesce({0}, array[]::integer[]) || array[99]",
}


async def fill(connection: asyncpg.Connection) -> None:
    """One row at least in every watched table."""
    await keys.create(connection, PEPPER, name="first", organisation="acme")
    organisation = await keys.find_organisation(connection, "acme")
    person = await people.create(
        connection, email="ada@example.org", name="Ada", password="correct horse battery"
    )
    await people.join(connection, person, organisation, Role.OWNER)
    await invitations.create(
        connection,
        organisation_id=organisation,
        email="grace@example.org",
        role=Role.VIEWER,
        invited_by=person,
    )
    await connection.execute("insert into access.second_factor values ($1, 'sealed')", person)
    await connection.execute(
        "insert into endpoints.serverless (organisation_id, project_id, name, model) "
        "values ($1, 1, 'here', 'm')",
        organisation,
    )
    await connection.execute(
        "insert into adapters.adapter (organisation_id, project_id, base_model, name, active_version) "
        "values ($1, 1, 'm', 'mine', 1)",
        organisation,
    )
    await connection.execute(
        "insert into adapters.version (adapter_id, number, digest, size_bytes, rank, target_modules) "
        "values (1, 1, repeat('0', 64), 1, 1, '{}')"
    )
    await connection.execute("insert into billing.wallet values ($1, 0, 'prepaid')", organisation)
    await connection.execute(
        "insert into billing.budget (organisation_id, period, limit_nano_usd, alert_percents, enforced) "
        "values ($1, 'month', 1, '{50}', true)",
        organisation,
    )
    await connection.execute(
        "insert into billing.promotion (organisation_id, project_id, amount_nano_usd) values ($1, 0, 5)",
        organisation,
    )
    await connection.execute(
        "insert into billing.price_version "
        "(model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from) "
        "values ('m', 1, 1, 1, now())"
    )
    await connection.execute(
        "insert into billing.minute_price_version (kind, subject, nano_usd_per_minute, valid_from) "
        "values ('instance', 'cpu', 1, now())"
    )
    await connection.execute(
        "insert into billing.price_assignment (organisation_id, price_list_id, valid_from) "
        "values ($1, 1, now())",
        organisation,
    )
    await connection.execute(
        "insert into engines.pool_version (model, version, content) values ('m', 1, '{}')"
    )
    await connection.execute("insert into engines.pool values ('m', 1, '{}', 'operator')")


async def test_the_whole_life_of_a_key_is_told_in_the_name_of_who_did_it(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)
    with actor.answering("req_1", "192.0.2.7") as deed:
        deed.by(ActorKind.PERSON, "7", "Ada <ada@example.org>")
        async with running.acquire() as connection:
            made, text = await issuing.issue(
                connection, PEPPER, organisation, Wanted(name="laptop"), Role.OWNER
            )
            await limits.limit_key(connection, organisation, made.id, RateLimits(requests_per_minute=5))
            await issuing.revoke(connection, organisation, made.id, Role.OWNER)
            await issuing.revoke(connection, organisation, made.id, Role.OWNER)
    found = [entry for entry in reversed(await log(running, organisation)) if entry.object_id == made.id]
    assert [entry.action for entry in found] == ["created", "changed", "revoked"]
    assert {(entry.actor_kind, entry.actor_id, entry.actor_name) for entry in found} == {
        (ActorKind.PERSON, "7", "Ada <ada@example.org>")
    }
    assert {(entry.request_id, entry.address, entry.object_name) for entry in found} == {
        ("req_1", "192.0.2.7", "laptop")
    }
    assert (found[1].before, found[1].after) == ({"limits": {}}, {"limits": {"requests_per_minute": 5}})
    secret = text.rpartition("-")[2]
    whole = msgspec.json.encode(found).decode()
    assert secret not in whole
    assert keys.digest(PEPPER, secret[:40].encode()).hex() not in whole
    assert found[0].after["digest"] == "hidden, another"


async def test_what_is_undone_with_its_transaction_is_not_told(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)
    before = len(await log(running))
    async with running.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await projects.create(connection, organisation, "search")
        await transaction.rollback()
    assert len(await log(running)) == before


async def test_a_connection_that_was_given_back_has_forgotten_whose_it_was(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)
    with actor.answering("req_1", "") as deed:
        deed.by(ActorKind.KEY, "abc")
        async with running.acquire() as connection:
            await projects.create(connection, organisation, "one")
    async with running.acquire() as connection:
        await projects.create(connection, organisation, "two")
    two, one = (await log(running, organisation))[:2]
    assert (one.actor_kind, one.actor_id) == (ActorKind.KEY, "abc")
    assert (two.actor_kind, two.actor_name, two.request_id) == (ActorKind.SYSTEM, "gateway", "")


async def test_changes_at_the_same_time_are_told_apart(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)

    async def make(number: int) -> None:
        with actor.answering(f"req_{number}", "") as deed:
            await asyncio.sleep(0)
            deed.by(ActorKind.PERSON, str(number))
            async with running.acquire() as connection:
                await projects.create(connection, organisation, f"project {number}")

    await asyncio.gather(*(make(number) for number in range(30)))
    found = [entry for entry in await log(running, organisation) if entry.actor_kind is ActorKind.PERSON]
    assert len(found) == 30
    assert all(entry.object_name == f"project {entry.actor_id}" for entry in found)


async def test_sql_by_hand_is_told_too(database: asyncpg.Pool) -> None:
    organisation = await make_organisation(database)
    await database.execute("update access.organisation set plan = 'standard', name = 'acme 2'")
    newest = (await log(database, organisation))[0]
    assert newest.actor_kind is ActorKind.DATABASE
    assert newest.actor_name == await database.fetchval("select session_user")
    assert (newest.before, newest.after) == ({"name": "acme"}, {"name": "acme 2"})


async def test_a_command_is_told_by_the_account_that_ran_it(
    database_url: str, database: asyncpg.Pool
) -> None:
    connection = await connections.connect(database_url, "command")
    await actor.tell_command(connection)
    await plans.create(connection, "large", 2.0, RateLimits())
    await connection.close()
    (entry,) = [each for each in await log(database) if each.object_name == "large"]
    assert entry.actor_kind is ActorKind.COMMAND
    assert entry.actor_name
    assert entry.organisation_id is None


async def test_touching_a_row_tells_nothing(running: asyncpg.Pool) -> None:
    await make_organisation(running)
    before = len(await log(running))
    await running.execute("update access.api_key set changed_at = now() + interval '1 s'")
    assert len(await log(running)) == before


async def test_running_processes_can_neither_write_nor_change_the_log(running: asyncpg.Pool) -> None:
    await make_organisation(running)
    for statement in (
        "update access.audit_entry set actor_name = 'nobody'",
        "delete from access.audit_entry",
        "truncate access.audit_entry",
        "insert into access.audit_entry (actor_kind, actor_id, actor_name, request_id, address, action, "
        "object, object_id, object_name, before, after) "
        "values ('system', '', '', '', '', 'created', 'x', '', '', '{}', '{}')",
        "select audit.write(1, 'created', 'x', '', '', '{}', '{}')",
        "drop trigger audited on access.api_key",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await running.execute(statement)


async def test_its_owner_cannot_change_it_either(database: asyncpg.Pool) -> None:
    await make_organisation(database)
    for statement in (
        "update access.audit_entry set actor_name = 'nobody'",
        "delete from access.audit_entry",
        "truncate access.audit_entry",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await database.execute(statement)


async def test_a_person_is_told_of_in_each_organisation(running: asyncpg.Pool) -> None:
    first, second = await make_organisation(running), await make_organisation(running, "globex")
    async with running.acquire() as connection:
        person = await people.create(
            connection, email="ada@example.org", name="Ada", password="correct horse battery"
        )
        for organisation in (first, second):
            await people.join(connection, person, organisation, Role.OWNER)
        await connection.execute("update access.person set name = 'Ada L.'")
        await people.join(connection, person, first, Role.DEVELOPER)
    for organisation in (first, second):
        (renamed,) = [each for each in await log(running, organisation) if each.object == "person"]
        assert renamed.after == {"name": "Ada L."}
    changed = (await log(running, first))[0]
    assert (changed.object, changed.object_name) == ("member", "ada@example.org")
    assert (changed.before, changed.after) == ({"role": "owner"}, {"role": "developer"})


async def test_money_is_told_whole_and_usage_is_not(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)
    before = len(await log(running, organisation))

    async def book(kind: TransactionKind, ref: str) -> None:
        accounts = {
            Account(organisation, 0, AccountKind.CASH): 5_000_000_000,
            Account(organisation, 0, AccountKind.PREPAID): -5_000_000_000,
        }
        with actor.answering("", "") as deed:
            deed.by(ActorKind.PERSON, "1", "Olga")
            async with running.acquire() as connection:
                await ledger.book(connection, Booking(ref=ref, kind=kind, entries=accounts, note="by card"))

    await book(TransactionKind.TOP_UP, "top-up:1")
    await book(TransactionKind.LEASE_GRANT, "lease:1")
    found = await log(running, organisation)
    assert len(found) == before + 1
    assert found[0].actor_name == "Olga"
    assert found[0].after["kind"] == "top_up"
    assert found[0].after["note"] == "by card"
    assert [each["amount_nano_usd"] for each in found[0].after["entries"]] == [5_000_000_000, -5_000_000_000]


async def test_pages_follow_on_each_other_and_filters_hold(running: asyncpg.Pool) -> None:
    organisation, other = await make_organisation(running), await make_organisation(running, "globex")
    async with running.acquire() as connection:
        for number in range(7):
            await projects.create(connection, organisation, f"p_{number}")
        await projects.create(connection, other, "theirs")
    asked = Asked(organisation_id=organisation)
    read: list[Any] = []
    place = FIRST
    while found := await entries.page(running, asked, place, 3):
        read += found
        place = entries.read_place(str(found[-1].place))
    assert [each.id for each in read] == [each.id for each in await log(running, organisation)]
    assert all(each.organisation_id == organisation for each in read)

    async def names(**more: Any) -> list[str]:
        found = await entries.page(running, Asked(organisation_id=organisation, **more), FIRST, 50)
        return [each.object_name for each in found]

    assert await names(name="p_3") == ["p_3"]
    assert await names(name="p%3") == []
    assert "default" in await names(thing="project")
    assert await names(thing="project", action="removed") == []
    assert await names(who="gateway", thing="API key") == ["first"]
    assert await names(who="nobody") == []
    assert await names(until=read[-1].at) == []


@pytest.mark.parametrize("text", ["x", "2026-11-21/1", "2026-11-21T00:00:00+00:00/x", "/1"])
async def test_a_place_that_no_page_named_is_refused(text: str) -> None:
    with pytest.raises(entries.UnreadablePlace):
        entries.read_place(text)


async def test_of_two_owners_who_remove_each_other_one_stays(running: asyncpg.Pool) -> None:
    organisation = await make_organisation(running)
    owners = []
    async with running.acquire() as connection:
        for name in ("ada", "bob"):
            person = await people.create(
                connection, email=f"{name}@example.org", name=name, password="correct horse battery"
            )
            await people.join(connection, person, organisation, Role.OWNER)
            owners.append(person)

    async def remove(person: int) -> None:
        async with running.acquire() as connection:
            await members.remove(connection, organisation, person)

    ended = await asyncio.gather(*(remove(person) for person in owners), return_exceptions=True)
    assert [type(each) for each in ended if each] == [members.LastOwner]
    (left,) = await members.listed(running, organisation)
    async with running.acquire() as connection:
        with pytest.raises(members.LastOwner):
            await members.change_role(connection, organisation, left.person_id, Role.VIEWER)
