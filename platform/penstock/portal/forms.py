"""Forms: what was typed into a struct, or what is wrong beside each field, with all of it kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request

from penstock.edge.refusals import BadRequest

T = TypeVar("T", bound=msgspec.Struct)
FIELD = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.(?P<field>\w+)`)?$", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
"""Every control character but tab and line ends; no keyboard sends one."""
SURROGATE = re.compile("[\ud800-\udfff]")
BYTES_MAX = 16_384
"""Of a form that anybody may send (`request_max_body_size` of its handler)."""
MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


class FormError(Exception):
    """What somebody typed cannot be taken: `errors` has a sentence for each field that is wrong."""

    def __init__(self, errors: dict[str, str], values: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = errors
        self.values = values


async def typed(request: Request[Any, Any, Any]) -> dict[str, str]:
    """What was typed, by field; of a field that is sent twice the last counts. Files are left out.

    Raises BadRequest for what no form of ours sends: bytes that are no text, NUL.
    """
    try:
        sent = (await request.form()).multi_items()
    except UnicodeDecodeError:
        raise BadRequest("what was sent is not text in UTF-8") from None
    values = {name: value for name, value in sent if isinstance(value, str)}
    for value in values.values():
        # Postgres keeps neither.
        if "\0" in value or SURROGATE.search(value):
            raise BadRequest("what was sent has characters that are no text")
    return values


def read(values: Mapping[str, str], form: type[T]) -> T:
    """Turn typed text into a struct, its numbers and choices too; empty text is a field left out.

    Raises FormError naming the first field that is wrong.
    """
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    known = {name: value for name, value in given.items() if name in form.__struct_fields__}
    if unseen := {
        name: "there are control characters in this" for name in known if CONTROL.search(known[name])
    }:
        raise FormError(unseen, values)
    try:
        return msgspec.convert(known, form, strict=False)
    except msgspec.ValidationError as error:
        raise FormError(_beside(str(error)), values) from None


def sentence(error: object) -> str:
    """What an error says, as people write."""
    text = f"{error}"
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def _beside(text: str) -> dict[str, str]:
    if missing := MISSING.search(text):
        return {missing["field"]: "fill this in"}
    found = FIELD.match(text)
    assert found is not None
    return {found["field"] or "form": found["problem"]}
