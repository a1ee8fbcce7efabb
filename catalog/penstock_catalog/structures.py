"""From YAML nodes to the structs that a schema describes, or to every problem with its line.

The schema is a tree of `cards.Checked` structs; what a field accepts is said by its annotation (`schema`).
"""

from __future__ import annotations

import difflib
import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import yaml

from penstock_catalog import cards, nodes, schema
from penstock_catalog.errors import FileProblem

MISSING: Any = object()
"""Stands for a value that could not be read: its problem is already noted."""


class StructReader:
    """One file's way from nodes to structs; collects problems instead of stopping at the first."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[FileProblem] = []

    def note(self, line: int, field: str, problem: str) -> None:
        """Keep a problem for the end."""
        self.problems.append(FileProblem(self.file, line, field, problem))

    def line(self, root: yaml.Node, field: str) -> int:
        """Line of the key at a dotted path, or of the nearest key above it that is there."""
        line, node = nodes.line_of(root), root
        for name in field.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            found = [(key, value) for key, value in pairs if key.value == name]
            if not found:
                break
            key, node = found[-1]
            line = nodes.line_of(key)
        return line

    def value(self, node: yaml.Node, kind: Any, path: str, line: int) -> Any:
        """Read one node as the annotated type `kind`; `line` is where its key stands."""
        bare = schema.bare(kind)
        if structs := schema.structs(bare):
            return (
                self.tagged(node, structs, path, line)
                if len(structs) > 1
                else self.struct(node, structs[0], path)
            )
        if typing.get_origin(bare) is list and isinstance(node, yaml.SequenceNode):
            return self.items(node, kind, path, line)
        if typing.get_origin(bare) is dict and isinstance(node, yaml.MappingNode):
            return self.entries(node, kind, path)
        return self.leaf(nodes.plain(node), node, kind, path, line)

    def leaf(self, plain: Any, node: yaml.Node, kind: Any, path: str, line: int) -> Any:
        """Check a value that has no structs inside."""
        try:
            return msgspec.convert(plain, kind)
        except msgspec.ValidationError:
            self.note(line, path, self.complaint(node, kind))
            return MISSING

    def complaint(self, node: yaml.Node, kind: Any) -> str:
        """Say what is wrong with a value and what would be accepted."""
        accepted = schema.accepts(kind)
        if not isinstance(node, yaml.ScalarNode):
            shape = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
            if isinstance(node.value, list) and not node.value:
                shape = f"an empty {shape.removeprefix('a ')}"
            return f"{shape} is not {accepted}"
        plain = nodes.plain(node)
        raw = str(node.value)
        if plain is not None and not isinstance(plain, str) and _fits(raw, kind):
            return f'{raw} is read as a number or a truth value: write it in quotes, "{raw}"'
        words = schema.words(kind)
        guess = difflib.get_close_matches(raw, words, 1)
        hint = f'; did you mean "{guess[0]}"?' if guess else ""
        shown = json.dumps(plain if len(raw) < 80 else raw[:80] + "...", ensure_ascii=False)
        return f"{shown} is not {accepted}{hint}"

    def items(self, node: yaml.SequenceNode, kind: Any, path: str, line: int) -> Any:
        """Read a list."""
        (item,) = typing.get_args(schema.bare(kind))
        values = [
            self.value(each, item, f"{path}[{at}]", nodes.line_of(each)) for at, each in enumerate(node.value)
        ]
        if any(value is MISSING for value in values):
            return MISSING
        return self.leaf(values, node, kind, path, line)

    def entries(self, node: yaml.MappingNode, kind: Any, path: str) -> Any:
        """Read a mapping whose keys are free."""
        _, of = typing.get_args(schema.bare(kind))
        pairs = self.pairs(node, path)
        values = {
            name: self.value(value, of, f"{path}.{name}", line) for name, (value, line) in pairs.items()
        }
        return MISSING if any(value is MISSING for value in values.values()) else values

    def pairs(self, node: yaml.MappingNode, path: str) -> dict[str, tuple[yaml.Node, int]]:
        """Name to (value, line of the key); keys that are no text or there twice are noted."""
        found: dict[str, tuple[yaml.Node, int]] = {}
        for key, value in node.value:
            line = nodes.line_of(key)
            name = nodes.plain(key) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                self.note(line, path, "a key that is not text; keys are field names")
                continue
            if name in found:
                self.note(
                    line, _join(path, name), f"stands here twice; the first is on line {found[name][1]}"
                )
            found[name] = (value, line)
        return found

    def tagged(self, node: yaml.Node, structs: list[type[msgspec.Struct]], path: str, line: int) -> Any:
        """Choose among structs by their tag (`kind`)."""
        by_tag = {str(struct.__struct_config__.tag): struct for struct in structs}
        tag_field = str(structs[0].__struct_config__.tag_field)
        accepted = " or ".join(f'"{tag}"' for tag in by_tag)
        if not isinstance(node, yaml.MappingNode):
            self.note(line, path, f"{nodes.plain(node)!r} is not a mapping with {tag_field}: {accepted}")
            return MISSING
        tags = [
            (nodes.plain(value), nodes.line_of(key)) for key, value in node.value if key.value == tag_field
        ]
        if not tags:
            self.note(line, _join(path, tag_field), f"is missing ({accepted})")
            return MISSING
        tag, tag_line = tags[-1]
        if not isinstance(tag, str) or tag not in by_tag:
            self.note(tag_line, _join(path, tag_field), f"{json.dumps(tag)} is not {accepted}")
            return MISSING
        return self.struct(node, by_tag[tag], path)

    def struct(self, node: yaml.Node, struct: type[msgspec.Struct], path: str) -> Any:
        """Read a mapping as a struct."""
        if not isinstance(node, yaml.MappingNode):
            self.note(
                nodes.line_of(node),
                path,
                f"is not a mapping of fields ({', '.join(struct.__struct_fields__)})",
            )
            return MISSING
        before = len(self.problems)
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        values: dict[str, Any] = {}
        pairs = self.pairs(node, path)
        pairs.pop(str(struct.__struct_config__.tag_field), None)
        for name, (value, line) in pairs.items():
            if name in fields:
                values[name] = self.value(value, fields[name].type, _join(path, name), line)
            else:
                self.note(line, _join(path, name), f"is not a field here{_guess(name, list(fields))}")
        for name, field in fields.items():
            if field.required and name not in values:
                self.note(
                    nodes.line_of(node), _join(path, name), f"is missing ({schema.meaning(field.type)})"
                )
        if len(self.problems) > before:
            return MISSING
        try:
            return struct(**values)
        except cards.InvalidFieldsError as error:
            for name, problem in error.problems:
                self.note(self.line(node, name), _join(path, name), problem)
            return MISSING


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _guess(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f'; did you mean "{near[0]}"?' if near else f"; fields are {', '.join(known)}"


def _fits(text: str, kind: Any) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True
