"""The last events of a stream that did not end by itself, in words that OpenAI's clients understand."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.usage import EngineUsage

CREDIT_ENDED = (
    "your prepaid credit ended here; what was written until then is billed, and nothing more. "
    "Add credit to go on"
)


def failed(message: str) -> bytes:
    """An error of ours in the middle of a stream, as OpenAI's clients raise it; no `[DONE]` follows."""
    return _event({"error": _error(message, "server_error", "engine_failed")})


def credit_ended(call: Call, usage: EngineUsage) -> bytes:
    """The end of a stream whose credit ended: cut by length, as its choices say, and then why.

    The reason comes as an error, which OpenAI's clients raise: nobody takes the answer for a whole one.
    """
    chat = call.surface is Surface.CHAT
    choice: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    end = choice | {"logprobs": None, "finish_reason": "length"}
    events = [_chunk(call, [{"index": index} | end for index in range(call.prompts * call.n)])]
    if call.usage_view is not UsageView.HIDDEN:
        counted: dict[str, Any] = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.prompt_tokens + usage.output_tokens,
        }
        if usage.cached_tokens:
            counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        events.append(_chunk(call, []) | {"usage": counted})
    events.append({"error": _error(CREDIT_ENDED, "insufficient_quota", "insufficient_credit")})
    return b"".join(map(_event, events))


def _chunk(call: Call, choices: list[dict[str, Any]]) -> dict[str, Any]:
    """An event as the engine would have written it."""
    chat = call.surface is Surface.CHAT
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{call.request_id}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": int(time.time()),
        "model": call.model,
        "choices": choices,
    }


def _error(message: str, kind: str, code: str) -> dict[str, str | None]:
    return {"message": message, "type": kind, "param": None, "code": code}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
