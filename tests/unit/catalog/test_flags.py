from __future__ import annotations

import pytest

from penstock_catalog import flags


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor-parallel-size", "8"),
        ("limit-mm-per-prompt", '{"image": 4, "video":0}'),
        ("enforce-eager", "true"),
        ("gpu-memory-utilization", "0.85"),
    ],
)
def test_reviewed_flags_pass(name: str, value: str) -> None:
    assert flags.problem(name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trust-remote-code", "true"),
        ("chat-template", "/etc/passwd"),
        ("tool-parser-plugin", "x.py"),
        ("port", "80"),
        ("--tensor-parallel-size", "8"),
        ("tensor-parallel-size", "8 --trust-remote-code"),
        ("tensor-parallel-size", "0"),
        ("tensor-parallel-size", "8\n"),
        ("enforce-eager", "false"),
        ("limit-mm-per-prompt", '{"image": 4}; rm'),
        ("load-format", "pt"),
        ("gpu-memory-utilization", "1.5"),
    ],
)
def test_flags_and_values_that_were_not_reviewed_do_not(name: str, value: str) -> None:
    assert flags.problem(name, value) is not None


def test_flags_become_arguments_and_switches_stand_alone() -> None:
    extra = {"tensor-parallel-size": "2", "enforce-eager": "true"}
    assert flags.command_line(extra) == ["--enforce-eager", "--tensor-parallel-size", "2"]
