"""What the annotations of the card schema say, taken apart for error messages and for the reference."""

from __future__ import annotations

import datetime
import enum
import types
import typing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

_IN_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime.date: "a date such as 2025-04-28",
}


def parts(kind: Any) -> list[Any]:
    """Alternatives of a union without None, each still annotated; a list of one for anything else."""
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return [each for each in typing.get_args(inner) if each is not type(None)]
    return [kind]


def bare(kind: Any) -> Any:
    """The type without annotations and, where only None is the alternative, without that."""
    alternatives = parts(kind)
    if len(alternatives) > 1:
        return kind
    (only,) = alternatives
    return typing.get_args(only)[0] if typing.get_origin(only) is Annotated else only


def nullable(kind: Any) -> bool:
    """Whether null is accepted."""
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    return type(None) in typing.get_args(inner)


def structs(kind: Any) -> list[type[msgspec.Struct]]:
    """The structs a value may be: several for a tagged union, none for plain values."""
    return [
        each for each in map(bare, parts(kind)) if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]


def words(kind: Any) -> list[str]:
    """The words an enumeration accepts; empty for other types."""
    of = bare(kind)
    return [str(member.value) for member in of] if isinstance(of, type) and issubclass(of, enum.Enum) else []


def accepts(kind: Any) -> str:
    """Say in words what a value must be, ready to follow "is not"."""
    for annotated in (kind, *parts(kind)):
        for meta in _metas(annotated):
            if meta.description and _bounds(meta):
                return meta.description
    if choices := words(kind):
        return f"one of {', '.join(choices)}"
    of = bare(kind)
    if typing.get_origin(of) is list:
        return "a list"
    if typing.get_origin(of) is dict or structs(of):
        return "a mapping"
    return _IN_WORDS[of]


def meaning(kind: Any) -> str:
    """Say what a field means: the description of its last annotation."""
    return next((meta.description for meta in reversed(_metas(kind)) if meta.description), "")


def _metas(kind: Any) -> list[Meta]:
    if typing.get_origin(kind) is not Annotated:
        return []
    return [each for each in typing.get_args(kind)[1:] if isinstance(each, Meta)]


def _bounds(meta: Meta) -> bool:
    limits = (meta.gt, meta.ge, meta.lt, meta.le, meta.pattern, meta.min_length, meta.max_length)
    return any(limit is not None for limit in limits)
