from __future__ import annotations

import msgspec
import pytest

from penstock_billing import record
from penstock_billing.errors import UsageRefused
from penstock_billing.record import Outcome
from penstock_billing.testing import EXAMPLE, usage_record


def test_a_record_comes_back_as_it_was_written() -> None:
    written = usage_record(client_request_id="mine", outcome=Outcome.CLIENT_GONE)
    assert record.decode(record.encode(written)) == written


def test_the_order_of_the_fields_is_the_format_and_stays() -> None:
    # Journals of an older release are read by position: append fields, never move them.
    assert msgspec.msgpack.decode(record.encode(EXAMPLE)) == [
        *(bytes(16), 0, 1, 1, "key_example", "req_example", None, "chat.completions"),
        *("penstock/demo-chat", 1, 100, 40, 20, 5, "done", 200, True, 120, 30_000, 400_000),
        *("demo-chat-0", 12_345, 0, 0, 0, False, "", "postpaid", 0),
        *(0, 0, 0, 0, "", 0, 0, False),
    ]


def test_a_record_of_the_first_release_is_read() -> None:
    fields = msgspec.structs.astuple(EXAMPLE)[:22]
    assert record.decode(msgspec.msgpack.encode(fields)) == EXAMPLE


def test_a_record_of_before_its_way_was_kept_is_read() -> None:
    fields = msgspec.structs.astuple(EXAMPLE)[:29]
    assert fields[-1] == EXAMPLE.wallet_project_id
    assert record.decode(msgspec.msgpack.encode(fields)) == EXAMPLE


def test_a_record_of_a_newer_release_with_more_fields_is_read() -> None:
    fields = [*msgspec.structs.astuple(EXAMPLE), "a later field"]
    assert record.decode(msgspec.msgpack.encode(fields)) == EXAMPLE


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": b"short"},
        {"ended_ms": -1},
        {"output_tokens": -1},
        {"input_tokens": 2**31},
        {"cost_nano_usd": -1},
        {"key_id": "k" * 257},
        {"outcome": "unheard of"},
    ],
)
def test_what_cannot_be_a_record_is_not_read_as_one(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        record.decode(record.encode(usage_record(**changes)))


def test_more_cached_than_input_tokens_are_refused() -> None:
    with pytest.raises(UsageRefused, match="cached_tokens 3"):
        usage_record(input_tokens=2, cached_tokens=3)
