"""What of a request steers it: whose cached prompts it may meet, which engine knows it, how urgent it is."""

from __future__ import annotations

import hashlib

from msgspec import Raw

from penstock.admission.fair_queue import Urgency
from penstock.edge.openai import ChatAsked, CompletionsAsked, EmbeddingsAsked
from penstock.edge.refusals import BadRequest
from penstock.routing.policy import ANYWHERE, Hint

PREFIX_CHARACTERS = 2_000
"""How much of a prompt's beginning tells it from others: some 500 tokens."""
TIERS = {
    "auto": Urgency.INTERACTIVE,
    "default": Urgency.INTERACTIVE,
    "standard": Urgency.INTERACTIVE,
    "priority": Urgency.INTERACTIVE,
    "scale": Urgency.INTERACTIVE,
    "flex": Urgency.BATCH,
}
"""OpenAI's service tiers: `flex` takes its time, the others are served alike."""


def urgency_of(asked: ChatAsked | CompletionsAsked | EmbeddingsAsked) -> Urgency:
    """Tell how urgent a request is; raises BadRequest for a service tier that nobody knows."""
    tier = None if isinstance(asked, EmbeddingsAsked) else asked.service_tier
    if tier is None:
        return Urgency.INTERACTIVE
    if tier not in TIERS:
        raise BadRequest(f"service_tier must be one of {', '.join(TIERS)}", param="service_tier")
    return TIERS[tier]


def hint_of(
    asked: ChatAsked | CompletionsAsked | EmbeddingsAsked, whose: str, adapter: str | None = None
) -> Hint:
    """Say where a request belongs; `whose` keeps apart those that share no cache, `adapter` is its content.

    A conversation keeps its beginning, so that all of its turns belong to the same engine.
    """
    if isinstance(asked, EmbeddingsAsked):
        return ANYWHERE
    digest = hashlib.blake2b(whose.encode(), digest_size=16)
    session = asked.prompt_cache_key or asked.user
    if asked.prompt_cache_key is not None:
        digest.update(asked.prompt_cache_key.encode())
    else:
        digest.update(_beginning(asked).encode(errors="surrogatepass"))
    return Hint(
        digest.digest(),
        f"{whose}:{session}".encode()[:64] if session is not None else None,
        bytes.fromhex(adapter) if adapter is not None else None,
    )


def engine_fields(salt: str | None, urgency: Urgency) -> dict[str, Raw]:
    """Write what the engine is to know of it (vLLM's `cache_salt` and `priority`)."""
    fields = {} if salt is None else {"cache_salt": Raw(b'"%b"' % salt.encode())}
    if urgency is not Urgency.INTERACTIVE:
        fields["priority"] = Raw(b"%d" % urgency)
    return fields


def _beginning(asked: ChatAsked | CompletionsAsked) -> str:
    if isinstance(asked, CompletionsAsked):
        return (asked.prompt if isinstance(asked.prompt, str) else str(asked.prompt[:200]))[
            :PREFIX_CHARACTERS
        ]
    parts: list[str] = []
    for message in asked.messages:
        parts.append(f"{message.role}:{message.content}")
        if message.role == "user":
            break
    return "\n".join(parts)[:PREFIX_CHARACTERS]
