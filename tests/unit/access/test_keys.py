"""API keys: what is not one of ours is refused without asking anybody."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access import keys
from penstock_base import ids


def made() -> str:
    key_id, secret = ids.random_text(keys.ID_LENGTH), ids.random_text(keys.SECRET_LENGTH)
    return f"{keys.PREFIX}{key_id}-{secret}{keys._check(key_id, secret)}"


def test_a_made_key_is_taken_apart() -> None:
    text = made()
    parsed = keys.parse(text)
    assert parsed is not None
    assert text.startswith(f"{keys.PREFIX}{parsed.id}-")
    assert parsed.secret.decode() in text


@given(st.integers(0, 69), st.sampled_from(string.ascii_lowercase + string.digits + "-é"))
def test_one_wrong_character_is_noticed(at: int, character: str) -> None:
    text = made()
    at %= len(text)
    if text[at] != character:
        assert keys.parse(text[:at] + character + text[at + 1 :]) is None


@given(st.text(max_size=100))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    assert keys.parse(text) is None
    assert keys.parse(keys.PREFIX + text) is None


@pytest.mark.parametrize("cut", [0, 10, 30, 69])
def test_a_cut_key_is_refused(cut: int) -> None:
    assert keys.parse(made()[:cut]) is None


def test_the_stored_digest_hangs_on_the_pepper() -> None:
    assert keys.digest(b"a" * 32, b"secret") != keys.digest(b"b" * 32, b"secret")
