"""What one request may ask of a model, by its card: refused before any engine hears of it."""

from __future__ import annotations

from penstock_catalog.cards import ModelCard, Task

PROMPTS_MAX = 256
"""Most inputs in one request (embeddings, prompts of a completion)."""


class LimitExceeded(Exception):
    """A field asks for more than the model gives; says the field and what would be accepted."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class WrongTask(Exception):
    """The model exists but does not do this."""


def check_task(card: ModelCard, task: Task, operation: str) -> None:
    """Raise WrongTask unless the model is for this."""
    if card.task is not task:
        raise WrongTask(f"{card.id} is a model for {card.task.value}: it does not do {operation}")


def check_output(card: ModelCard, *, n: int, max_tokens: int | None, max_tokens_param: str) -> None:
    """Raise LimitExceeded when more answers, or longer ones, are asked for than the card allows."""
    choices_max = card.engine.choices_max
    if not 1 <= n <= choices_max:
        raise LimitExceeded("n", f"n is {n}: {card.id} gives 1 to {choices_max} answers to one request")
    tokens_max = card.engine.max_output_tokens or card.context_length
    if max_tokens is not None and not 1 <= max_tokens <= tokens_max:
        raise LimitExceeded(
            max_tokens_param, f"{max_tokens_param} is {max_tokens}: {card.id} writes 1 to {tokens_max} tokens"
        )


TEMPLATE_TOKENS = 512
"""Surely more than a chat template adds to a conversation; what it adds to a message, its JSON outweighs."""


def input_tokens_max(card: ModelCard, body_bytes: int, *, inputs: int, media: bool) -> int:
    """How many tokens a request can have at most, by its size: a token stands for a byte at least.

    What pictures and sounds count depends on the model, so with them it is all that the model reads.
    """
    most = inputs * card.context_length
    return most if media else min(most, body_bytes + TEMPLATE_TOKENS)


def check_prompts(count: int, param: str) -> None:
    """Raise LimitExceeded for no input at all, or too many in one request."""
    if not 1 <= count <= PROMPTS_MAX:
        raise LimitExceeded(param, f"{param} holds {count} inputs: 1 to {PROMPTS_MAX} are accepted")
