"""A simulated engine's prefix cache: blocks of beginnings, kept apart by `cache_salt` as vLLM does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from penstock_engines.simulated.requests import GenerateRequest

BLOCK_TOKENS = 16
BLOCKS_MAX = 100_000


class PrefixCache:
    """Which beginnings were seen; the ones not met for longest are forgotten."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, None] = {}

    def take(self, asked: GenerateRequest, prompt_tokens: int) -> int:
        """Remember a prompt; how many of its tokens were there already.

        The last token is always computed: what comes after it is what an engine is asked for.
        """
        words = _words(asked)
        chain = hashlib.blake2b(repr((asked.model, asked.cache_salt)).encode(), digest_size=16)
        cached, known = 0, True
        for at in range(0, len(words) - len(words) % BLOCK_TOKENS, BLOCK_TOKENS):
            chain.update("\0".join(words[at : at + BLOCK_TOKENS]).encode(errors="surrogatepass"))
            block = chain.digest()
            known = known and block in self._blocks
            cached += BLOCK_TOKENS if known else 0
            self._blocks.pop(block, None)
            self._blocks[block] = None
        while len(self._blocks) > BLOCKS_MAX:
            del self._blocks[next(iter(self._blocks))]
        return min(cached, prompt_tokens - 1)


def _words(asked: GenerateRequest) -> list[str]:
    if isinstance(asked.prompt, list):
        return [str(token) for token in asked.prompt]
    text = "".join(f"{_role(each)} {_content(each)} " for each in asked.messages) or asked.prompt
    return text.split()


def _role(message: dict[str, Any]) -> str:
    return str(message.get("role", ""))


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content)
