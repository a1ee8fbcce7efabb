"""Who waits for the first byte of an answer is told once, and forgotten.

It usually holds the relay: kept, it would be a cycle per request, which cost the gateway a third of its time.
"""

from __future__ import annotations

from penstock.serving.relay import Patience, WholeRelay


class Connection:
    """Nothing is sent; the test is the engine."""

    def abort(self) -> None:
        """Nothing to break."""


async def test_who_waits_for_the_first_byte_is_told_once_and_not_kept() -> None:
    relay = WholeRelay(Connection(), Patience(1.0, 1.0))  # type: ignore[arg-type]
    told: list[WholeRelay] = []
    relay.on_first_data = lambda: told.append(relay)
    relay.on_head(200, [])
    relay.on_data(b"{")
    relay.on_data(b"}")
    assert told == [relay]
    assert relay.on_first_data is None
