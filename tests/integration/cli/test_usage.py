"""`penstock usage`: the numbers of the ledger, divided as asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock_base import money

Command = Callable[..., Awaitable[Any]]


async def test_it_is_what_was_charged_however_it_is_divided(
    penstock: Command, asked: Command, acme: int, use: Command
) -> None:
    made = await use(acme, 1_000, 20_000)
    total = sum(one.cost_nano_usd for one in made)
    for division in ("day,model", "key,project", "hour,endpoint", "minute", ""):
        lines = await asked("usage", "--organisation", "acme", "--since", today(made), "--by", division)
        assert sum(line["cost_nano_usd"] for line in lines) == total
    (line,) = await asked("usage", "--organisation", "acme", "--by", "key")
    assert line["key_id"] == made[0].key_id
    shown = (await penstock("usage", "--organisation", "acme", columns=140)).stdout
    assert money.nano_to_usd(total) in shown
    assert "As of " in shown
    assert await asked("usage", "--organisation", "acme", "--key", "another") == []


def today(made: list[Any]) -> str:
    return f"{datetime.fromtimestamp(made[0].ended_ms / 1000, UTC):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--organisation", "nobody"), 1, "nobody"),
        (("--organisation", "acme", "--since", "soon"), 2, "write a day as 2026-11-21"),
        (("--organisation", "acme", "--until", "9999-12-31"), 2, "write a day"),
        (("--organisation", "acme", "--since", "2026-11-02", "--until", "2026-11-01"), 2, "must be before"),
        (("--organisation", "acme", "--by", "colour"), 2, "it may have day, hour, minute, model"),
        (("--organisation", "acme", "--project", "web"), 2, "a project's number"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_a_sentence(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, says: str
) -> None:
    result = await penstock("usage", *arguments, status=status)
    assert says in result.output
    assert "Traceback" not in result.output
