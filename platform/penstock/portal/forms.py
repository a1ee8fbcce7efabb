"""Forms: what was typed into a struct, or what is wrong beside each field, with all of it kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request

T = TypeVar("T", bound=msgspec.Struct)
FIELD = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.(?P<field>\w+)`)?$", re.DOTALL)
MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


class FormError(Exception):
    """What somebody typed cannot be taken: `errors` has a sentence for each field that is wrong."""

    def __init__(self, errors: dict[str, str], values: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = errors
        self.values = values


async def typed(request: Request[Any, Any, Any]) -> dict[str, str]:
    """What was typed, by field; of a field that is sent twice the last counts. Files are left out."""
    return {name: value for name, value in (await request.form()).multi_items() if isinstance(value, str)}


def read(values: Mapping[str, str], form: type[T]) -> T:
    """Turn typed text into a struct, its numbers and choices too; empty text is a field left out.

    Raises FormError naming the first field that is wrong.
    """
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    known = {name: value for name, value in given.items() if name in form.__struct_fields__}
    try:
        return msgspec.convert(known, form, strict=False)
    except msgspec.ValidationError as error:
        raise FormError(_beside(str(error)), values) from None


def _beside(text: str) -> dict[str, str]:
    if missing := MISSING.search(text):
        return {missing["field"]: "fill this in"}
    found = FIELD.match(text)
    assert found is not None
    return {found["field"] or "form": found["problem"]}
