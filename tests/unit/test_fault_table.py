"""The table of faults is whole: every row of the matrix is in it, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FAULTS = Path(__file__).parent.parent / "faults"
ROWS = {str(number) for number in [*range(1, 31), 33, 34, 36, *range(38, 44)]}


def named() -> dict[str, set[str]]:
    """The tests that the table names, by row."""
    rows = re.findall(r"^\| (\d+|any) \|.*$", (FAULTS / "README.md").read_text(), re.MULTILINE)
    lines = re.findall(r"^\| (?:\d+|any) \|.*$", (FAULTS / "README.md").read_text(), re.MULTILINE)
    return {
        row: set(re.findall(r"`(test_\w+\.py::test_\w+)`", line))
        for row, line in zip(rows, lines, strict=True)
    }


def written() -> set[str]:
    """The tests that there are."""
    return {
        f"{path.name}::{node.name}"
        for path in FAULTS.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_row_of_the_matrix_is_in_the_table_and_has_a_test() -> None:
    assert named().keys() >= ROWS
    assert [row for row, tests in named().items() if not tests] == []


def test_no_row_is_there_twice() -> None:
    lines = re.findall(r"^\| (\d+|any) \|", (FAULTS / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == len(set(lines))


def test_the_table_names_each_test_of_faults_and_no_other() -> None:
    in_the_table = {name for tests in named().values() for name in tests}
    assert in_the_table == written()
