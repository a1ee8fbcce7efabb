"""`penstock requests`: listed and explained on narrow screens and wide ones."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from penstock_base import ids
from penstock_billing import shipping
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome
from penstock_billing.testing import usage_record

Command = Callable[..., Awaitable[Any]]
OF = ("--organisation", "acme")


def woken(organisation_id: int, **changes: Any) -> Any:
    """A request that woke its model, waited, and lost a moment at an engine that failed it."""
    event_id = ids.uuid7_bytes()
    fields: dict[str, Any] = {
        "event_id": event_id,
        "request_id": f"req_{event_id.hex()}",
        "organisation_id": organisation_id,
        "client_request_id": "mine",
        "queue_us": 5_000_000,
        "admit_us": 800,
        "wait_us": 4_500_000,
        "wake_us": 4_000_000,
        "retries": 1,
        "policy": "least_load",
        "candidates": 3,
        "pool_version": 2,
        "first_token_us": 5_200_000,
        "duration_us": 6_500_000,
    }
    return usage_record(**(fields | changes))


@pytest.fixture
def record(database: asyncpg.Pool, tmp_path: Path) -> Command:
    async def run(*made: Any) -> None:
        journal = Journal(tmp_path / "journal", reserve_bytes=1 << 14)
        for each in made:
            journal.append(each)
        async with database.acquire() as connection:
            await shipping.prepare(connection)
            await shipping.ship(connection, journal.name, journal.path)
        journal.close()

    return run


@pytest.mark.parametrize("columns", [80, 140])
async def test_a_request_is_explained_without_anything_cut_short(
    penstock: Command, acme: int, use: Command, record: Command, columns: int
) -> None:
    await use(acme, 1_000)
    one = woken(acme)
    await record(one)
    for name in (one.request_id, "mine"):
        shown = (await penstock("requests", "show", name, *OF, columns=columns)).stdout
        assert max(map(len, shown.splitlines())) <= columns
        assert "…" not in shown
        for text in (one.request_id, "4.00 s", "500.0 ms", "1 engine", "demo-chat-0", "0.000012345"):
            assert text in " ".join(shown.split()), text
        for stage in ("admitted", "woken", "queued", "retried", "sent", "worked", "answered", "ended"):
            assert f" {stage} " in shown


async def test_requests_are_listed_and_paged(
    penstock: Command, asked: Command, acme: int, record: Command
) -> None:
    now_ms = time.time_ns() // 1_000_000
    made = [woken(acme, ended_ms=now_ms - n, client_request_id=None) for n in range(5)]
    await record(*made, woken(acme, outcome=Outcome.STALLED, cost_nano_usd=0, ended_ms=now_ms - 9))
    first = (await penstock("requests", "list", *OF, "--limit", "4", columns=80)).stdout
    assert max(map(len, first.splitlines())) <= 80
    joined = "".join(first.split())
    assert "0.000012345" in joined
    after = next(line.removeprefix("More: --after ") for line in first.splitlines() if "--after" in line)
    rest = await asked("requests", "list", *OF, "--limit", "4", "--after", after)
    assert [each["request_id"] for each in rest][:1] == [made[4].request_id]
    stalled = await asked("requests", "list", *OF, "--outcome", "stalled")
    assert [each["outcome"] for each in stalled] == ["stalled"]
    for few in (
        ("--longer-than", "1h"),
        ("--status", "5xx"),
        ("--id", "nobody's"),
        ("--within", "1h", "--key", "x"),
    ):
        assert await asked("requests", "list", *OF, *few) == []
    alike = ("--longer-than", "6s", "--status", "200", "--within", "1h", "--id", made[2].request_id)
    assert [each["request_id"] for each in await asked("requests", "list", *OF, *alike)] == [
        made[2].request_id
    ]
    (shown,) = [await asked("requests", "show", made[0].request_id, *OF)]
    assert shown["stages"][2] == msgspec.json.decode(msgspec.json.encode(shown["stages"][2]))
    assert (shown["stages"][2]["stage"], shown["stages"][2]["took_us"]) == ("woken", 4_000_000)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("show", "mine"), 1, "no request 'mine' is recorded"),
        (("show", "a\0b"), 1, "printable"),
        (("show", "mine", "--organisation", "nobody"), 1, "nobody"),
        (("list", "--outcome", "fine"), 2, "it may have done, client_gone"),
        (("list", "--since", "soon"), 2, "write a day"),
        (("list", "--limit", "0"), 2, "1<=x<=200"),
        (("list", "--longer-than", "long"), 2, "write a time with its unit"),
        (("list", "--status", "fine"), 2, "5xx"),
        (("list", "--within", "1h", "--since", "2026-11-21"), 2, "name one of them"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_a_sentence(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, says: str
) -> None:
    end = () if "--organisation" in arguments else OF
    result = await penstock("requests", *arguments, *end, status=status)
    assert says in result.output
    assert "Traceback" not in result.output


async def test_where_nothing_is_that_is_said(penstock: Command, acme: int) -> None:
    assert "None is like that" in (await penstock("requests", "list", *OF)).stdout
