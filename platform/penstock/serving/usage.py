"""Reading the engine's own token counts: the one number that response, record and bill share."""

from __future__ import annotations

import msgspec


class PromptDetails(msgspec.Struct, frozen=True):
    """What the engine says about the input."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    """What the engine says about the output."""

    reasoning_tokens: int | None = None


class EngineUsage(msgspec.Struct, frozen=True):
    """The `usage` object of an OpenAI-compatible engine; embeddings have no output."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def __post_init__(self) -> None:
        """Refuse counts below zero: no engine bug may pay a customer."""
        if (
            self.prompt_tokens < 0
            or self.output_tokens < 0
            or not 0 <= self.cached_tokens <= self.prompt_tokens
        ):
            raise ValueError("token counts must not be negative, nor more cached than read")

    @property
    def output_tokens(self) -> int:
        """Generated tokens, those of reasoning included."""
        return self.completion_tokens or 0

    @property
    def cached_tokens(self) -> int:
        """Input tokens that the engine found in its prefix cache: a part of `prompt_tokens`."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0

    def with_reasoning_of(self, seen: EngineUsage | None) -> EngineUsage:
        """The same counts, with as many tokens of reasoning as were seen: a receipt does not tell them."""
        if seen is None or not seen.reasoning_tokens:
            return self
        details = CompletionDetails(min(seen.reasoning_tokens, self.output_tokens))
        return msgspec.structs.replace(self, completion_tokens_details=details)

    @property
    def reasoning_tokens(self) -> int:
        """Output tokens spent on reasoning: a part of `output_tokens`."""
        details = self.completion_tokens_details
        return (details.reasoning_tokens or 0) if details else 0


class WholeAnswer(msgspec.Struct):
    """The part of a whole response that is metered."""

    usage: EngineUsage


NOTHING = EngineUsage()

decode_usage = msgspec.json.Decoder(EngineUsage).decode
decode_whole = msgspec.json.Decoder(WholeAnswer).decode
