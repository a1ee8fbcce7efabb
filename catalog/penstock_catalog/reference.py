"""`python -m penstock_catalog.reference`: the fields of a card as Markdown, from the schema itself."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator

import msgspec

from penstock_catalog import cards, flags, schema

_SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("", cards.ModelCard),
    ("source", cards.FolderSource),
    ("source", cards.HubSource),
    ("prices", cards.Prices),
    ("engine", cards.EngineSettings),
)
_VOCABULARY: tuple[type[cards.Meaningful], ...] = (
    cards.Task,
    cards.Capability,
    cards.EndpointKind,
    cards.Dtype,
)


def markdown() -> str:
    """Every field, the words that lists accept, and the reviewed engine flags, as Markdown tables."""
    parts = [_table("Field | Means | Accepts | Unless said", _fields())]
    parts += [_table(f"{words.__name__} | Means", _words(words)) for words in _VOCABULARY]
    parts.append(_table("`engine.extra` | Means | Accepts", _flags()))
    return "\n\n".join(parts) + "\n"


def _fields() -> Iterator[list[str]]:
    for section, struct in _SECTIONS:
        config = struct.__struct_config__
        if config.tag:
            yield [
                f"`{section}.{config.tag_field}`",
                "a source of this kind has:",
                f"`{config.tag}`",
                "required",
            ]
        for field in msgspec.structs.fields(struct):
            name = f"{section}.{field.name}" if section else field.name
            yield [f"`{name}`", schema.meaning(field.type), _accepts(field.type), _default(field)]


def _accepts(kind: typing.Any) -> str:
    of = schema.bare(kind)
    if typing.get_origin(of) is list:
        (item,) = typing.get_args(of)
        return f"a list, each {schema.accepts(item)}"
    if typing.get_origin(of) is dict:
        return f"a mapping, each value {schema.accepts(typing.get_args(of)[1])}"
    return schema.accepts(kind) + (", or null" if schema.nullable(kind) else "")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if isinstance(field.default, msgspec.Struct) or field.default is msgspec.NODEFAULT:
        return "none"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _words(vocabulary: type[cards.Meaningful]) -> Iterator[list[str]]:
    for member in vocabulary:
        yield [f"`{member.value}`", member.meaning]


def _flags() -> Iterator[list[str]]:
    for name, flag in sorted(flags.REVIEWED.items()):
        yield [f"`{name}`", flag.means, flag.accepts]


def _table(heading: str, rows: Iterator[list[str]]) -> str:
    columns = heading.split(" | ")
    lines = [f"| {heading} |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
