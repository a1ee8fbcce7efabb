"""What a simulated engine reads of a request; everything else in it is ignored, as vLLM mostly does."""

from __future__ import annotations

from typing import Any

import msgspec


class StreamOptions(msgspec.Struct, frozen=True):
    """Which usage a stream shows."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerateRequest(msgspec.Struct, frozen=True):
    """A chat or text completion."""

    model: str | None = None
    messages: list[dict[str, Any]] = []
    prompt: str | list[Any] = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    cache_salt: str | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """Texts to embed."""

    model: str | None = None
    input: str | list[Any] = ""


class UnloadRequest(msgspec.Struct, frozen=True):
    """An adapter that is not to be kept."""

    lora_name: str


def chat_tokens(messages: list[dict[str, Any]]) -> int:
    """Count a conversation: a token per word, and one per message."""
    return sum(1 + _words(message.get("content")) for message in messages)


def prompt_tokens(prompt: str | list[Any]) -> int:
    """Count one prompt: a token per word, or the token ids; at least one."""
    return max(1, len(prompt.split()) if isinstance(prompt, str) else len(prompt))


def inputs(given: str | list[Any]) -> list[str | list[Any]]:
    """Tell the texts apart: one text, one list of token ids, or a list of either."""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    return list(given)


def _words(content: Any) -> int:
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        return sum(len(str(part.get("text", "")).split()) for part in content if isinstance(part, dict))
    return 0
