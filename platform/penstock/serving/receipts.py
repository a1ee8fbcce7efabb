"""Asking an engine what an aborted request had generated: the exact count of a client that left."""

from __future__ import annotations

import logging

import msgspec

from penstock.observe import metrics
from penstock.serving.usage import EngineUsage, PromptDetails
from penstock_engines.client import EngineAddress, EngineGone, ask, get

logger = logging.getLogger(__name__)

WAIT_MS = 1000
"""How long the engine may take to be done with a request whose client left."""
MARGIN_S = 1.0


class Receipt(msgspec.Struct, frozen=True):
    """What the engine's own process counted for one request id."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finished: bool
    """The counts are final: the engine works on no part of it."""
    aborted: bool = False
    """A part of it was cut before its own end."""


decode = msgspec.json.Decoder(Receipt).decode


async def fetch(address: EngineAddress, request_id: str) -> EngineUsage | None:
    """Wait until the engine has stopped the request; its count, or None if it cannot say within a second.

    Then the last count seen on the stream stands, and nobody knows whether the engine works on: it is logged
    and counted. An engine that is not one of Penstock's never can say.
    """
    receipt = await _ask(address, request_id, WAIT_MS)
    if receipt is None or not receipt.finished:
        metrics.aborts("unconfirmed").inc()
        logger.warning(
            "an engine did not confirm that it stopped",
            extra={"request_id": request_id, "reason": "it works on" if receipt else "it does not say"},
        )
        return None
    metrics.aborts("stopped" if receipt.aborted else "finished").inc()
    return EngineUsage(receipt.prompt_tokens, receipt.completion_tokens, PromptDetails(receipt.cached_tokens))


async def cached_tokens(address: EngineAddress, request_id: str) -> int | None:
    """How much of a running request's input came from the engine's cache; None if it cannot say."""
    receipt = await _ask(address, request_id, 0)
    return None if receipt is None else receipt.cached_tokens


async def _ask(address: EngineAddress, request_id: str, wait_ms: int) -> Receipt | None:
    question = get(b"/penstock/receipts/%b?wait_ms=%d" % (request_id.encode(), wait_ms))
    try:
        status, body = await ask(address, question, wait_ms / 1000 + MARGIN_S)
        return decode(body) if status == 200 else None
    except (EngineGone, TimeoutError, msgspec.MsgspecError):
        return None
