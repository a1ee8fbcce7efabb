"""`penstock budgets` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Command = Callable[..., Awaitable[Any]]
ACME = ("--organisation", "acme")


async def test_a_budget_is_set_listed_and_removed(
    penstock: Command, asked: Command, acme: int, use: Command
) -> None:
    assert "No budget is in force" in (await penstock("budgets", "list")).stdout
    said = (await penstock("budgets", "set", *ACME, "--limit", "25")).stdout
    assert "refused with 402" in said
    await penstock("budgets", "set", *ACME, "--project", "web", "--limit", "0.5", "--soft", "--alert", "90")
    await use(acme, 1_250_000_000)
    whole, web = await asked("budgets", "list")
    assert (whole["whose"], whole["hard"], whole["spent_nano_usd"]) == ("all of it", True, 1_250_000_000)
    assert (web["whose"], web["hard"], web["alert_percents"]) == ("project web", False, [90])
    for columns in (80, 120):
        text = (await penstock("budgets", "list", columns=columns)).stdout
        assert "25.000000000" in text
        assert "1.250000000" in text
        assert max(len(line) for line in text.splitlines()) <= columns
    await penstock("budgets", "remove", str(whole["id"]), *ACME)
    assert [each["id"] for each in await asked("budgets", "list", *ACME)] == [web["id"]]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("set", *ACME, "--limit", "much"), 2, "is not an amount such as 12.50"),
        (("set", *ACME, "--limit", "-1"), 2, "must be 0 or more"),
        (("set", *ACME, "--limit", "1", "--project", "nowhere"), 1, "no project named 'nowhere'"),
        (("set", *ACME, "--limit", "1", "--key", "nobody"), 1, "has no key 'nobody'"),
        (("set", *ACME, "--limit", "1", "--alert", "0"), 1, "percentages from 1 to 1000"),
        (("remove", "7", *ACME), 1, "no budget 7 in force"),
    ],
)
async def test_bad_input_is_refused_in_words(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert acme
    refused = await penstock("budgets", *arguments, status=status)
    assert said in refused.stderr
    assert "Traceback" not in refused.output
