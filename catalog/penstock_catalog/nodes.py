"""YAML as nodes that know their lines, in the narrow dialect that cards and price files use.

No aliases, tags or merge keys (a card says everything once, plainly), no keys twice, no deep nesting. Words
are text unless they are null, true, false or a decimal number, so the language `no` stays Norwegian.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

BYTES_MAX = 65_536
DEPTH_MAX = 8

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class YamlRefusedError(ValueError):
    """The text is no YAML, or not the dialect of cards; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's reader without what cards do not need; only its composer is used."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, anchors, tags and depth before they cost anything."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlRefusedError(
                line, "anchors and aliases (& and *) are not accepted: write the value out"
            )
        if getattr(event, "tag", None):
            raise YamlRefusedError(line, f"the tag {event.tag} is not accepted: write the value without it")
        if not _is_text(getattr(event, "value", "")):
            raise YamlRefusedError(line, r"a \u escape names half a character: write the character itself")
        if self.depth >= DEPTH_MAX:
            raise YamlRefusedError(line, f"nested deeper than {DEPTH_MAX} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


# PyYAML's own resolvers follow YAML 1.1, where `no` is false and `1:30` is ninety.
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(_NULL, re.compile(r"\A(null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"\A(true|false)\Z"), ["t", "f"])
_Loader.add_implicit_resolver(
    _INT, re.compile(r"\A-?(0|[1-9][0-9]{0,17}|[1-9][0-9]{0,2}(_[0-9]{3}){1,5})\Z"), list("-0123456789")
)
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"\A-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,2})?\Z"), list("-0123456789")
)


def compose(data: bytes) -> yaml.Node:
    """Read one YAML document into nodes. Raises YamlRefusedError with the line of the first problem."""
    if len(data) > BYTES_MAX:
        raise YamlRefusedError(1, f"{len(data)} bytes; at most {BYTES_MAX} are accepted")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlRefusedError(line, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        # The reader refuses control characters while it is made.
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlRefusedError(line, f"the character U+{int(error.character):04X} is not accepted") from None
    except YamlRefusedError:
        raise
    except (ValueError, OverflowError):
        # PyYAML hands escapes such as "\UFFFFFFFF" to chr() unchecked, and tells no line.
        raise YamlRefusedError(1, r"a \U escape names no character: write the character itself") from None
    except yaml.MarkedYAMLError as error:
        raise YamlRefusedError(_line(error), _words(error, text)) from None
    if node is None:
        raise YamlRefusedError(1, "the file is empty")
    return node


def plain(node: yaml.Node) -> Plain:
    """Turn a node into Python values; of a key that is there twice, the last counts."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(each) for each in node.value]
    text = str(node.value)
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text == "true"
    if node.tag == _INT:
        return int(text)
    return float(text) if node.tag == _FLOAT else text


def line_of(node: yaml.Node) -> int:
    """Line of a node's first character, from 1."""
    return int(node.start_mark.line) + 1


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark else 1


def _words(error: yaml.MarkedYAMLError, text: str) -> str:
    lines = text.splitlines()
    line = _line(error) - 1
    if line < len(lines) and re.match(r" *\t", lines[line]):
        return "a tab at the start of the line; YAML is indented with spaces"
    context = f" ({error.context})" if error.context else ""
    return f"not readable as YAML: {error.problem}{context}"
