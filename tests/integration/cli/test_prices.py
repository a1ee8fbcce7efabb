"""`penstock prices` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from penstock_billing import prices
from penstock_billing.prices import Offer

Command = Callable[..., Awaitable[Any]]
MODEL = "penstock/demo-chat"
LATER = "2036-01-01T08:00Z"


@pytest.fixture(autouse=True)
async def card_prices(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await prices.sync_list(
            connection,
            [Offer(MODEL, 150_000, 75_000, 600_000), Offer("qwen/qwen3-30b-a3b-instruct", 1, 1, 1)],
        )


async def test_a_price_is_shown_added_and_scheduled(penstock: Command, asked: Command) -> None:
    added = await penstock("prices", "add", MODEL, "--output", "0.66")
    assert "+10.0 %" in added.stdout
    assert "within a second" in added.stdout
    await penstock("prices", "add", MODEL, "--input", "0.30", "--batch-discount", "50%", "--from", LATER)
    shown = (await asked("prices", "show", MODEL))["models"]
    assert [(one["status"], one["prices_usd"], one["batch_discount"]) for one in shown] == [
        ("in force", {"input": "0.15", "cached_input": "0.075", "output": "0.66"}, "0%"),
        ("scheduled", {"input": "0.30", "cached_input": "0.075", "output": "0.66"}, "50%"),
    ]
    history = (await asked("prices", "show", MODEL, "--history"))["models"]
    assert [one["status"] for one in history] == ["past", "in force", "scheduled"]
    then = (await asked("prices", "show", MODEL, "--at", "2037-01-01"))["models"]
    assert [one["prices_usd"]["input"] for one in then] == ["0.30"]


@pytest.mark.parametrize("columns", [80, 120])
async def test_tables_fit_the_screen_and_mark_what_is_scheduled(penstock: Command, columns: int) -> None:
    await penstock("prices", "add", MODEL, "--image", "0.001", "--batch-discount", "50%", "--from", LATER)
    await penstock("prices", "minute", "instance", "gpu-80", "--per-hour", "3.00")
    shown = (await penstock("prices", "show", columns=columns)).stdout
    assert max(len(line) for line in shown.splitlines()) <= columns
    assert f"  {MODEL}  " in shown
    assert "scheduled 2036-01-01 08:00" in shown
    assert "0.001   image" in shown
    assert "0.05       3.00" in shown


async def test_a_dry_run_changes_nothing(penstock: Command, asked: Command) -> None:
    planned = await penstock("prices", "add", MODEL, "--output", "0.30", "--dry-run")
    assert "-50.0 %" in planned.stdout
    assert "Nothing was changed" in planned.stdout
    assert len((await asked("prices", "show", MODEL, "--history"))["models"]) == 1


async def test_an_organisation_gets_a_list_of_its_own(penstock: Command, asked: Command, acme: int) -> None:
    assert acme
    assert "prices add MODEL --list gold" in (await penstock("prices", "new-list", "gold")).output
    await penstock("prices", "add", MODEL, "--list", "gold", "--output", "0.50")
    assert "standard → gold" in (await penstock("prices", "assign", "acme", "gold")).stdout
    await penstock("prices", "assign", "acme", "standard", "--from", LATER)
    mine = (await asked("prices", "show", "--organisation", "acme"))["models"]
    of_model = [one for one in mine if one["model"] == MODEL]
    assert [(one["list"], one["prices_usd"]["output"], one["status"]) for one in of_model] == [
        ("gold", "0.50", "in force"),
        ("standard", "0.60", "scheduled"),
    ]
    standard, gold = await asked("prices", "lists")
    assert (gold["organisations"], gold["prices"], standard["scheduled"][0]["organisation"]) == (
        ["acme"],
        1,
        "acme",
    )
    for columns in (80, 120):
        table = (await penstock("prices", "lists", columns=columns)).stdout
        assert max(len(line) for line in table.splitlines()) <= columns
        assert "acme from 2036-01-01" in table


BAD_INPUT: list[tuple[tuple[str, ...], int, str]] = [
    (("add", MODEL, "--input", "-1"), 2, "'--input': '-1' is not a price such as 0.15"),
    (("add", MODEL, "--input", "0.0000001"), 2, "at most 6 decimals"),
    (("add", MODEL, "--batch-discount", "0.5"), 2, 'from "0%" to "100%"'),
    (("add", MODEL, "--from", "soon"), 2, "write a day as 2026-12-01"),
    (("add", MODEL, "--output", "1", "--from", "2026-01-01"), 1, "--from: 2026-01-01T00:00:00Z is past"),
    (("add", MODEL, "--cached", "1"), 1, "--cached: cached_input 1.00 is more than input 0.15"),
    (("add", "penstock/demo-cat", "--input", "1"), 1, "did you mean penstock/demo-chat"),
    (("add", MODEL, "--list", "gold"), 1, "there is no price list 'gold'; there are standard"),
    (("add", "qwen/qwen3-8b", "--input", "1"), 1, "--cached: qwen/qwen3-8b has no price yet"),
    (("show", "penstock/demo-cat"), 1, "did you mean penstock/demo-chat"),
    (("show", "--list", "gold"), 1, "there are standard"),
    (("show", "--organisation", "nobody"), 1, "no organisation named 'nobody'"),
    (("show", "--list", "standard", "--organisation", "acme"), 2, "not both"),
    (("assign", "nobody", "standard"), 1, "no organisation named 'nobody'"),
    (("minute", "endpoint", "fast", "--per-minute", "1"), 1, "serverless, online, batch"),
    (("minute", "instance", "gpu-80"), 2, "--per-minute or with --per-hour"),
    (("minute", "instance", "gpu-80", "--per-hour", "1"), 2, "nearest that can be charged"),
    (("new-list", "Gold"), 1, "NAME: 'Gold' cannot be a list's name"),
    (("simulate", "none.yaml"), 1, "none.yaml:1: cannot be read"),
]


async def test_bad_input_is_told_in_a_sentence(penstock: Command) -> None:
    for arguments, status, told in BAD_INPUT:
        result = await penstock("prices", *arguments, status=status)
        assert told in result.output, (arguments, result.output)
        assert "Traceback" not in result.output


async def test_recorded_usage_is_tried_on_proposed_prices(
    penstock: Command, asked: Command, acme: int, database: asyncpg.Pool, use: Command, tmp_path: Path
) -> None:
    # What `use` charges is 1 nano-dollar per input token; half of it, each request rounded half to even.
    await use(acme, 1, 3, 5, 1000)
    file = tmp_path / "next.yaml"
    file.write_text(f'models:\n  {MODEL}:\n    input: "0.0005"\n    cached_input: "0"\n    output: "9"\n')
    found = await asked("prices", "simulate", str(file))
    (row,) = found["rows"]
    assert (row["organisation"], row["model"], row["requests"]) == ("acme", MODEL, 4)
    assert (row["paid_nano_usd"], row["would_pay_nano_usd"]) == (1009, 0 + 2 + 2 + 500)
    assert found["total"]["change"] == "-50.0 %"
    for columns in (80, 120):
        shown = (await penstock("prices", "simulate", str(file), columns=columns)).stdout
        assert max(len(line) for line in shown.splitlines()) <= columns
        assert "0.000000504" in shown
        assert "-0.000000505" in shown
    other = await penstock("prices", "simulate", str(file), "--to", "2026-01-01", "--organisation", "acme")
    assert "Nothing was used then" in other.stdout
    await penstock("prices", "simulate", str(file), "--from", "2030-01-01", status=2)
    # A day whose events are in a file only is told, not passed over.
    await database.execute(
        "insert into billing.archive (day, file, events, cost_nano_usd, sha256, detached_at) "
        "values ('2026-01-05', 'x', 1, 1, '', now())"
    )
    window = ("--from", "2026-01-05T12:00Z", "--to", "2026-01-07")
    assert (
        "2026-01-05 are in archived files"
        in (await penstock("prices", "simulate", str(file), *window)).output
    )


async def test_adapters_are_tried_on_the_proposed_prices_of_their_base(
    asked: Command, acme: int, use: Command, tmp_path: Path
) -> None:
    await use(acme, 100, model=f"{MODEL}:tone@2")
    file = tmp_path / "next.yaml"
    file.write_text(f'models:\n  {MODEL}:\n    input: "0.0005"\n    cached_input: "0"\n    output: "9"\n')
    (row,) = (await asked("prices", "simulate", str(file)))["rows"]
    assert (row["model"], row["paid_nano_usd"], row["would_pay_nano_usd"]) == (f"{MODEL}:tone@2", 100, 50)


async def test_every_mistake_in_a_file_is_told_with_its_line(penstock: Command, tmp_path: Path) -> None:
    file = tmp_path / "next.yaml"
    file.write_text(f"models:\n  {MODEL}:\n    input: 0.15\n    output: cheap\n")
    told = (await penstock("prices", "simulate", str(file), status=1)).output
    for problem in (":3: ", 'write it in quotes, "0.15"', ":4: ", '"cheap" is not a decimal', "is missing"):
        assert problem in told
