"""How the audit log is worded, and that a connection that only reads is told nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.access.audit import actor, words
from penstock.access.audit.actor import ActorKind
from penstock.access.audit.entries import Entry
from penstock.access.audit.words import Line


def entry(**fields: Any) -> Entry:
    made: dict[str, Any] = {
        "id": 1,
        "at": datetime(2026, 11, 21, tzinfo=UTC),
        "organisation_id": 1,
        "actor_kind": ActorKind.PERSON,
        "actor_id": "7",
        "actor_name": "Ada <ada@example.org>",
        "request_id": "",
        "address": "",
        "action": "changed",
        "object": "API key",
        "object_id": "k",
        "object_name": "laptop",
        "before": {},
        "after": {},
    }
    return Entry(**(made | fields))


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (ActorKind.PERSON, "Ada <ada@example.org>", "Ada ada@example.org"),
        (ActorKind.KEY, "laptop", "The key laptop"),
        (ActorKind.COMMAND, "root", "root by a command on the machine"),
        (ActorKind.VISITOR, "", "Somebody who was not signed in"),
        (ActorKind.SYSTEM, "controller", "Penstock itself (controller)"),
        (ActorKind.DATABASE, "postgres", "postgres by SQL"),
    ],
)
def test_whoever_it_was_is_named(kind: ActorKind, name: str, told: str) -> None:
    assert words.who(entry(actor_kind=kind, actor_name=name)) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"action": "created"}, "created the API key laptop"),
        ({"action": "revoked"}, "revoked the API key laptop"),
        ({"before": {"name": "a"}, "after": {"name": "laptop"}}, "renamed the API key laptop"),
        ({"before": {"limits": {}}, "after": {"limits": {"x": 1}}}, "limited the API key laptop"),
        ({"object": "member", "object_name": "a@b.c"}, "changed the role of the member a@b.c"),
        ({"object": "budget", "object_name": "", "action": "created"}, "created a budget"),
        ({"object": "price", "object_name": "acme/tiny", "action": "created"}, "added a price of acme/tiny"),
        ({"object": "ledger transaction", "object_name": "top_up", "action": "created"}, "booked a top up"),
    ],
)
def test_what_was_done_is_a_sentence(fields: dict[str, Any], told: str) -> None:
    assert words.deed(entry(**fields)) == told


def test_settings_are_told_part_by_part_and_money_in_dollars() -> None:
    before = {"limits": {"requests_per_minute": 5, "tokens_per_minute": 9}, "limit_nano_usd": 25_000_000_000}
    after = {"limits": {"requests_per_minute": 5000}, "limit_nano_usd": 1_234_500_000_000}
    assert words.changes(entry(before=before, after=after)) == [
        Line("limit", "$25.00", "$1,234.50"),
        Line("limits: requests per minute", "5", "5,000"),
        Line("limits: tokens per minute", "9", "none"),
    ]


def test_prices_are_told_as_people_compare_them() -> None:
    made = entry(action="created", after={"input_pico_usd": 18_750, "image_pico_usd": 2_500_000_000})
    assert [line.after for line in words.changes(made)] == ["$0.0025", "$0.01875 per million tokens"]


def test_of_a_new_thing_neither_secrets_nor_what_is_off_is_told() -> None:
    after = {"id": "k", "organisation_id": 1, "digest": words.HIDDEN, "playground": False, "role": "viewer"}
    assert words.changes(entry(action="created", after=after)) == [Line("role", "none", "viewer")]


def test_ids_are_named_where_names_are_known() -> None:
    made = entry(before={"project_id": 1}, after={"project_id": 2})
    assert words.changes(made, {"project_id": {"1": "search"}}) == [Line("project", "search", "2")]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_no_cell_is_calculated_by_a_spreadsheet(name: str) -> None:
    assert f"'{name}" in words.row(entry(object_name=name), {1: "acme"})


async def test_without_a_request_that_changes_something_a_connection_is_asked_nothing() -> None:
    class Untouched:
        async def execute(self, *_: object) -> None:
            raise AssertionError("nothing is to be told")

    await actor.tell(Untouched())  # type: ignore[arg-type]
    with actor.answering("req_1", "192.0.2.1"), pytest.raises(AssertionError, match="nothing is to be told"):
        await actor.tell(Untouched())  # type: ignore[arg-type]
    await actor.tell(Untouched())  # type: ignore[arg-type]
