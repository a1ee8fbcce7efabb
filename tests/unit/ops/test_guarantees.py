"""The page of guarantees names tests that exist, for every invariant of the design."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "ops/guarantees.md").read_text()
NAMED = re.compile(r"^- `(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)`$", re.MULTILINE)


def promises() -> dict[str, str]:
    """The page's sections by their titles."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def exists(file: str, test: str) -> bool:
    """Whether a file has a test, as a function or as a state machine's case."""
    path = ROOT / file
    return path.is_file() and bool(
        re.search(rf"^(async )?def {test}\(|^{test} = ", path.read_text(), re.MULTILINE)
    )


def test_every_test_that_a_guarantee_names_exists() -> None:
    assert [found[0] for found in NAMED.finditer(PAGE) if not exists(found["file"], found["test"])] == []


def test_every_promise_has_tests_and_says_what_it_is_not() -> None:
    for title, text in promises().items():
        assert NAMED.search(text), f"no test tries to break: {title}"
        assert "**Not promised" in text, title


def test_every_invariant_of_the_design_is_promised() -> None:
    assert {int(number) for number in re.findall(r"^## .*\[(\d)\]$", PAGE, re.MULTILINE)} == set(range(1, 10))


def test_no_test_is_named_twice_in_one_promise() -> None:
    for title, text in promises().items():
        named = NAMED.findall(text)
        assert len(set(named)) == len(named), title
