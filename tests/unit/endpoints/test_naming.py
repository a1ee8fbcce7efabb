from __future__ import annotations

import re

import pytest

from penstock.endpoints.naming import free_name
from penstock.endpoints.serverless import check_name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("penstock/demo-chat", "demo-chat"),
        ("Qwen/Qwen2.5-Coder_32B", "qwen2-5-coder-32b"),
        ("acme/7b", "model-7b"),
        ("acme/é", "model"),
        ("acme/x", "x-model"),
        ("acme/" + "very-" * 12 + "long", "very-very-very-very-very-very-ve"),
    ],
)
def test_a_name_is_made_of_the_models_own(model: str, name: str) -> None:
    assert free_name(model, set()) == name
    check_name(name)


def test_a_name_that_is_taken_is_numbered_and_stays_short_enough() -> None:
    assert free_name("penstock/demo-chat", {"demo-chat", "demo-chat-2"}) == "demo-chat-3"
    long = free_name("acme/" + "a" * 40, {"a" * 32})
    assert re.fullmatch(r"a{30}-2", long)
    check_name(long)
