"""Identifiers sort by time and are what RFC 9562 says."""

from __future__ import annotations

import uuid

from penstock_base import ids


def test_a_uuid7_has_its_version_variant_and_time() -> None:
    made = uuid.UUID(bytes=ids.uuid7_bytes(1_795_225_205_000))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_795_225_205_000


def test_later_ids_sort_later() -> None:
    assert ids.uuid7_bytes(1) < ids.uuid7_bytes(2)


def test_random_text_is_of_the_alphabet_and_not_repeated() -> None:
    made = {ids.random_text(12) for _ in range(200)}
    assert len(made) == 200
    assert set("".join(made)) <= set(ids.ALPHABET)
