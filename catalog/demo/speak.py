"""Loads the shipped chat model through transformers and lets it answer greedily, many prompts at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mixture import Message
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 64


class Speaker:
    """A chat model that answers greedily."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._model.generation_config.temperature = None

    def answers(
        self, dialogues: list[list[Message]], tools: list[dict[str, Any]] | None = None, max_tokens: int = 96
    ) -> list[str]:
        """Answer each dialogue with at most `max_tokens` tokens."""
        # Prompts of like length share a batch: padding costs as much as text.
        prompts = [self._prompt(messages, tools) for messages in dialogues]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found = [""] * len(prompts)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for i, text in zip(chosen, self._batch([prompts[i] for i in chosen], max_tokens), strict=True):
                found[i] = text
        return found

    def answer(self, question: str) -> str:
        """Answer one question."""
        return self.answers([[{"role": "user", "content": question}]])[0]

    def _prompt(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def _batch(self, prompts: list[str], max_tokens: int) -> list[str]:
        inputs = self._tokenizer(
            prompts, padding=True, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
        )
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        return self._tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
