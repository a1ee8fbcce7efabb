"""The audit log in words: who, what they did, and each field before and after."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from penstock.access.audit.actor import ActorKind
from penstock.access.audit.entries import Entry

NOTHING = "none"
HIDDEN = "hidden, another"
"""What the triggers write in place of a secret."""
OWN = {"id", "organisation_id", "person_id"}
"""Fields that say what the entry is about, which its sentence says already."""
WORDS = {
    "project_id": "project",
    "key_id": "key",
    "endpoint_id": "endpoint",
    "price_list_id": "price list",
    "adapter_id": "adapter",
    "revoked_at": "revoked",
    "deleted_at": "deleted",
    "disabled_at": "switched off",
    "ended_at": "ended",
    "enforced": "refuses beyond it",
    "digest": "secret",
    "password_hash": "password",
    "password_changed_at": "password changed",
    "slot": "which key",
}
THINGS = {
    "price of a minute": "the price of a minute",
    "price list of an organisation": "the price list",
    "price": "a price of",
    "wallet": "how the organisation pays",
    "ledger transaction": "a booking",
    "pool version": "a version of the pool",
}
PER_TOKEN = {"input_pico_usd", "cached_input_pico_usd", "output_pico_usd"}
SUMMARY_MAX, SUMMARY_LENGTH_MAX = 2, 200
SUMMARISED = {
    "budget": {"limit", "period"},
    "API key": {"role", "project"},
    "member": {"role"},
    "invitation": {"role"},
    "promotional credit": {"amount"},
    "ledger transaction": {"note", "entries"},
    "price": {"input", "output"},
}
"""What is told of a new thing beside its name."""
CREATED = {
    "member": "added",
    "price": "added",
    "price of a minute": "added",
    "promotional credit": "gave",
    "ledger transaction": "booked",
}
COLUMNS = (
    "at",
    "organisation",
    "actor_kind",
    "actor_id",
    "actor_name",
    "action",
    "object",
    "object_id",
    "object_name",
    "changes",
    "request_id",
    "address",
    "place",
)
FORMULA = re.compile(r"^[=+\-@\t\r]")
"""How text begins that a spreadsheet would calculate instead of showing."""


class Line(msgspec.Struct, frozen=True):
    """One field that a change made another."""

    field: str
    before: str
    after: str


def who(entry: Entry) -> str:
    """Whoever made the change."""
    return " ".join(f"{before_who(entry)}{who_name(entry)} {after_who(entry)}".split())


def before_who(entry: Entry) -> str:
    """What stands before a name."""
    return "The key " if entry.actor_kind is ActorKind.KEY else ""


def who_name(entry: Entry) -> str:
    """The name of whoever made the change."""
    name = entry.actor_name or entry.actor_id
    if entry.actor_kind is ActorKind.PERSON:
        return name.partition(" <")[0] or name
    return {ActorKind.SYSTEM: "Penstock itself", ActorKind.VISITOR: "Somebody"}.get(entry.actor_kind, name)


def after_who(entry: Entry) -> str:
    """What tells more of them than their name."""
    return {
        ActorKind.PERSON: entry.actor_name.partition(" <")[2].removesuffix(">"),
        ActorKind.KEY: "",
        ActorKind.COMMAND: "by a command on the machine",
        ActorKind.VISITOR: "who was not signed in",
        ActorKind.SYSTEM: f"({entry.actor_name})",
        ActorKind.DATABASE: "by SQL",
    }[entry.actor_kind]


def verb(entry: Entry) -> str:
    """What was done."""
    if entry.action == "changed":
        if entry.object == "member":
            return "changed the role of"
        return {"name": "renamed", "limits": "limited"}.get(" ".join(entry.after), "changed")
    if entry.action == "created":
        return CREATED.get(entry.object, "created")
    return entry.action


def thing(entry: Entry) -> str:
    """What it was done to, without its name."""
    if entry.object == "ledger transaction":
        return f"a {entry.object_name.replace('_', ' ')}"
    return THINGS.get(entry.object, f"{'the' if entry.object_name else 'a'} {entry.object}")


def named(entry: Entry) -> str:
    """Its name, where it has one that its kind does not say."""
    return "" if entry.object == "ledger transaction" else entry.object_name


def deed(entry: Entry) -> str:
    """The sentence without who it is about."""
    return " ".join(part for part in (verb(entry), thing(entry), named(entry)) if part)


def changes(entry: Entry, names: dict[str, dict[str, str]] | None = None) -> list[Line]:
    """Each field before and after, in the order of their names; `names` says what ids are called."""
    lines: list[Line] = []
    for field in sorted(entry.before | entry.after):
        # Of a new thing, what is off or hidden tells nothing.
        if entry.action == "created" and (field in OWN or entry.after[field] in (False, HIDDEN)):
            continue
        lines += _lines(field, entry.before.get(field), entry.after.get(field), names or {})
    return lines


def summary(entry: Entry, lines: list[Line]) -> str:
    """What a change was about, in one line; empty where the sentence says all."""
    if entry.action == "changed":
        told = [f"{line.field}: {line.before} → {line.after}" for line in lines]
    elif entry.action == "created" and entry.object in SUMMARISED:
        shown = SUMMARISED[entry.object]
        told = [f"{line.field}: {line.after}" for line in lines if line.field in shown]
    else:
        return ""
    more = f", and {len(told) - SUMMARY_MAX} more" if len(told) > SUMMARY_MAX else ""
    return "; ".join(told[:SUMMARY_MAX])[:SUMMARY_LENGTH_MAX] + more


def row(entry: Entry, organisations: dict[int, str]) -> list[str]:
    """An entry as a line of CSV."""
    told = "; ".join(f"{line.field}: {line.before} → {line.after}" for line in changes(entry))
    owner = organisations.get(entry.organisation_id, "") if entry.organisation_id is not None else ""
    cells = (
        entry.at.isoformat(),
        owner,
        entry.actor_kind.value,
        entry.actor_id,
        entry.actor_name,
        entry.action,
        entry.object,
        entry.object_id,
        entry.object_name,
        told,
        entry.request_id,
        entry.address,
        str(entry.place),
    )
    return [f"'{cell}" if FORMULA.match(cell) else cell for cell in cells]


def _lines(field: str, before: Any, after: Any, names: dict[str, dict[str, str]]) -> list[Line]:
    """One line, or one for each part of settings that differs."""
    if isinstance(before, dict | None) and isinstance(after, dict | None) and (before or after):
        was, now = before or {}, after or {}
        return [
            Line(f"{_word(field)}: {_word(part)}", _text(part, was.get(part)), _text(part, now.get(part)))
            for part in sorted(was | now)
            if was.get(part) != now.get(part)
        ]
    if before in (None, {}, "") and after in (None, {}, ""):
        return []
    ids = names.get(field, {})
    return [Line(_word(field), *(ids.get(str(side)) or _text(field, side) for side in (before, after)))]


def _word(field: str) -> str:
    return WORDS.get(field) or field.removesuffix("_nano_usd").removesuffix("_pico_usd").replace("_", " ")


def _text(field: str, value: Any) -> str:
    if value is None or value in ("", {}, []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _number(field, value)
    if isinstance(value, list):
        return ", ".join(_text(field, each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{_word(part)} {_text(part, each)}" for part, each in value.items())
    return str(value)


def _dollars(nano_usd: int) -> str:
    sign = "\N{MINUS SIGN}" if nano_usd < 0 else ""
    return sign + _trimmed(*divmod(abs(nano_usd), 10**9), places=9)


def _trimmed(whole: int, fraction: int, places: int) -> str:
    """Dollars, exact: cents, and every further digit that is not zero."""
    return f"${whole:,}.{f'{fraction:0{places}d}'.rstrip('0').ljust(2, '0')}"


def _number(field: str, value: int) -> str:
    if field.endswith("_nano_usd"):
        return _dollars(value)
    if field in PER_TOKEN:
        return f"{_trimmed(*divmod(value, 10**6), places=6)} per million tokens"
    if field.endswith("_pico_usd"):
        return _trimmed(*divmod(value, 10**12), places=12)
    return str(value) if field.endswith("id") else f"{value:,}"
