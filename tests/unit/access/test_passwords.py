"""Which passwords are taken, and what is kept under the pepper."""

from __future__ import annotations

import pytest

from penstock.access import passwords, sealing, sign_in_limits


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "x" * 257,
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        "Password1234!",
        "qwerty-123456",
        "123456789012345",
        "admin.admin.2026",
        "ada.lovelace-1815",
        "Penstock-2026!!",
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    with pytest.raises(passwords.WeakPassword):
        passwords.check(password, "ada.lovelace@example.org", "Ada Lovelace")


@pytest.mark.parametrize(
    "password", ["correct horse battery", "my password is long", "пароль из слов", passwords.random()]
)
def test_words_in_a_row_are_a_password(password: str) -> None:
    passwords.check(password, "ada.lovelace@example.org", "Ada Lovelace")


async def test_a_password_is_verified_and_nobody_has_none() -> None:
    stored = await passwords.hash_new("correct horse battery")
    assert await passwords.verify(stored, "correct horse battery")
    assert not await passwords.verify(stored, "correct horse batterx")
    assert not await passwords.verify(stored, "correct horse battery" + "x" * 300)
    assert not await passwords.verify(None, "correct horse battery")


def test_what_is_sealed_opens_for_its_owner_purpose_and_pepper_alone() -> None:
    seal = sealing.Seal(b"p" * 32, "one thing")
    sealed = seal.close(b"secret", b"person 1")
    assert b"secret" not in sealed
    assert sealed != seal.close(b"secret", b"person 1")
    assert seal.open(sealed, b"person 1") == b"secret"
    for other, owner in (
        (seal, b"person 2"),
        (sealing.Seal(b"p" * 32, "another"), b"person 1"),
        (sealing.Seal(b"q" * 32, "one thing"), b"person 1"),
    ):
        with pytest.raises(sealing.Unreadable):
            other.open(sealed, owner)
    with pytest.raises(sealing.Unreadable):
        seal.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), b"person 1")
    with pytest.raises(sealing.Unreadable):
        seal.open(b"", b"person 1")


def test_a_home_has_one_network_however_many_addresses() -> None:
    assert sign_in_limits.network("2001:db8:1:2:3:4:5:6") == sign_in_limits.network("2001:db8:1:2::1")
    assert sign_in_limits.network("2001:db8:1:2::1") != sign_in_limits.network("2001:db8:1:3::1")
    assert sign_in_limits.network("::ffff:192.0.2.1") == sign_in_limits.network("192.0.2.1") == "192.0.2.1"
    assert sign_in_limits.network("no address") == "no address"
