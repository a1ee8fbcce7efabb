"""Asking an engine what an aborted request had generated: the exact count of a client that left."""

from __future__ import annotations

import asyncio

import msgspec

from penstock.serving.usage import EngineUsage, PromptDetails
from penstock_engines.client import EngineAddress, EngineGone, ask, get

ASK_TIMEOUT_S = 1.0
TRIES = 20
PAUSE_S = 0.05


class Receipt(msgspec.Struct, frozen=True):
    """What the engine's own process counted for one request id."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finished: bool


decode = msgspec.json.Decoder(Receipt).decode


async def fetch(address: EngineAddress, request_id: str) -> EngineUsage | None:
    """Wait until the engine has stopped the request; its count, or None if it cannot say within a second.

    An engine that is not one of Penstock's has no receipts; then the last count seen on the stream stands.
    """
    for _ in range(TRIES):
        try:
            status, body = await ask(
                address, get(b"/penstock/receipts/" + request_id.encode()), ASK_TIMEOUT_S
            )
            if status == 200 and (receipt := decode(body)).finished:
                return EngineUsage(
                    receipt.prompt_tokens,
                    receipt.completion_tokens,
                    PromptDetails(receipt.cached_tokens),
                )
        except (EngineGone, TimeoutError, msgspec.MsgspecError):
            return None
        await asyncio.sleep(PAUSE_S)
    return None
