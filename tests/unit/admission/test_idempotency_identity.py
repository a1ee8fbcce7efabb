"""Which headers stand for a request, and what makes two requests the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.keyring import Principal
from penstock.admission.idempotency import identity
from penstock.admission.idempotency.errors import InvalidKey
from penstock.admission.idempotency.identity import KEY, Repeatable

PEPPER = b"p" * 32
WHO = Principal(1, 2, "key")
ASKED = Repeatable(KEY, b"k")
RETRY = Repeatable(b"x-ms-client-request-id", b"k")


def identify(
    *,
    pepper: bytes = PEPPER,
    who: Principal = WHO,
    asked: Repeatable = ASKED,
    method: str = "POST",
    target: bytes = b"/v1/chat/completions?",
    body: bytes = b"{}",
) -> identity.Identity:
    return identity.identify(pepper, who, asked, method, target, body)


@pytest.mark.parametrize("value", [b"a", b"x" * 255, b"8e03978e-40d5-43dd-bc93-6894a57f9324", b'!"#~'])
def test_a_key_of_visible_ascii_is_taken(value: bytes) -> None:
    assert identity.read([(KEY, value)]) == Repeatable(KEY, value)


def test_a_key_written_as_the_draft_says_is_the_bare_one() -> None:
    assert identity.read([(KEY, b'"abc"')]) == identity.read([(KEY, b"abc")])


@pytest.mark.parametrize("value", [b"", b'""', b"x" * 256, b"two words", b"caf\xc3\xa9", b"a\x00b", b"\t"])
def test_what_is_no_key_is_refused_and_the_header_named(value: bytes) -> None:
    with pytest.raises(InvalidKey, match=r"Idempotency-Key must be 1 to 255 visible ASCII"):
        identity.read([(KEY, value)])


def test_two_keys_are_refused() -> None:
    with pytest.raises(InvalidKey, match="more than once"):
        identity.read([(KEY, b"a"), (KEY, b"a")])


def test_a_key_wins_over_ids_that_sdks_repeat() -> None:
    both = [(b"x-ms-client-request-id", b"ms"), (b"repeatability-request-id", b"rep")]
    assert identity.read(both) == Repeatable(b"repeatability-request-id", b"rep")
    assert identity.read([*both, (KEY, b"k")]) == Repeatable(KEY, b"k")


@pytest.mark.parametrize("value", [b"", b"two words", b"x" * 129, b"\xff"])
def test_an_sdk_id_that_makes_no_sense_is_no_id(value: bytes) -> None:
    assert identity.read([(b"x-ms-client-request-id", value)]) is None


@pytest.mark.parametrize(
    "other",
    [
        {"who": Principal(9, 2, "key")},
        {"who": Principal(1, 9, "key")},
        {"who": Principal(1, 2, "other")},
        {"asked": Repeatable(KEY, b"other")},
        {"asked": RETRY},
        {"method": "PUT"},
        {"target": b"/v1/embeddings?"},
        {"pepper": b"q" * 32},
    ],
)
def test_everything_of_the_scope_makes_another_claim(other: dict[str, object]) -> None:
    assert identify(**other).claim_id != identify().claim_id  # type: ignore[arg-type]


def test_another_body_is_the_same_claim_with_another_fingerprint() -> None:
    other = identify(body=b'{"a":1}')
    assert other.claim_id == identify().claim_id
    assert other.fingerprint != identify().fingerprint


def test_another_body_under_an_sdk_id_is_another_claim() -> None:
    assert identify(asked=RETRY, body=b'{"a":1}').claim_id != identify(asked=RETRY).claim_id
    assert identify(asked=RETRY) == identify(asked=RETRY)


parts = st.tuples(st.text(max_size=3), st.binary(max_size=3), st.binary(max_size=3))


@given(parts, parts)
def test_no_two_requests_share_a_fingerprint(
    one: tuple[str, bytes, bytes], two: tuple[str, bytes, bytes]
) -> None:
    prints = [identify(method=m, target=t, body=b).fingerprint for m, t, b in (one, two)]
    assert (prints[0] == prints[1]) == (one == two)


def test_nothing_of_the_key_is_in_what_is_stored() -> None:
    assert b"secret-key" not in identify(asked=Repeatable(KEY, b"secret-key")).claim_id
