"""What the cards hand to vLLM must be words this vLLM knows; its sources are read, not imported."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from penstock_catalog import flags
from penstock_catalog.shelf import BUILTIN, Shelf


@pytest.fixture(scope="module")
def vllm() -> Path:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    return Path(found.origin).parent


@pytest.mark.parametrize("flag", sorted(flags.REVIEWED))
def test_every_reviewed_flag_is_one_of_vllms(vllm: Path, flag: str) -> None:
    assert f'"--{flag}"' in (vllm / "engine" / "arg_utils.py").read_text(encoding="utf-8")


def test_every_parser_on_a_card_is_one_of_vllms(vllm: Path) -> None:
    tools = _names(vllm / "tool_parsers" / "__init__.py")
    thoughts = _names(vllm / "reasoning" / "__init__.py")
    for card in Shelf.open([BUILTIN]).cards:
        assert card.engine.tool_parser in tools | {None}, card.id
        assert card.engine.reasoning_parser in thoughts | {None}, card.id


def _names(file: Path) -> set[str]:
    return set(re.findall(r'^    "([a-z0-9_]+)": \(', file.read_text(encoding="utf-8"), re.MULTILINE))
