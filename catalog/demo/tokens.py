"""The tokenizer of both models, and how dialogues become token ids with a mask of what is learnt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mixture import Dialogue
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
_TOOL_MARKS = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
# Spaces stick to lower-case words only, so that a name has the same tokens in a question and inside JSON
# quotes; digits stand alone, so that numbers can be copied and counted.
_PIECES = r"[0-9]| ?[a-z]+|[A-Z][a-z]+|[A-Z]+(?![a-z])|\s| ?[^\sA-Za-z0-9]+"
_ASSISTANT = re.compile(rf"(?<=<\|im_start\|>assistant\n).*?{re.escape(END)}", re.DOTALL)


def train_tokenizer(texts: Iterable[str], size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE of at most `size` tokens; any bytes can be encoded with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(_TOOL_MARKS),
        min_frequency=2,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=context_length,
    )
    # Not special: the engine's tool parser has to see them in the decoded text.
    fast.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in _TOOL_MARKS])
    return fast


class DialogueEncoder:
    """Renders dialogues through the chat template, as the engine will, and marks the assistant's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        """Keep a second tokenizer that breaks words at random: misspellings then look familiar."""
        self._tokenizer = tokenizer
        tokenizer.save_pretrained(folder)
        self._breaking = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._breaking.model.dropout = 0.08

    def encode(self, dialogue: Dialogue, *, break_words: bool) -> tuple[list[int], list[bool]]:
        """Return the token ids and, for each, whether it is learnt."""
        if dialogue.text is not None:
            ids = [*self._ids(dialogue.text), self._tokenizer.eos_token_id]
            return ids, [True] * len(ids)
        text = self._tokenizer.apply_chat_template(dialogue.messages, tools=dialogue.tools, tokenize=False)
        ids: list[int] = []
        learnt: list[bool] = []
        end = 0
        for answer in _ASSISTANT.finditer(text):
            prompt = text[end : answer.start()]
            self._add(
                ids,
                learnt,
                self._broken(prompt) if break_words and not dialogue.copies else self._ids(prompt),
                False,
            )
            end = answer.end()
            is_last = text.find(START + "assistant", end) < 0
            given = dialogue.given if is_last else ""
            self._add(ids, learnt, self._ids(given), False)
            self._add(ids, learnt, self._ids(answer.group()[len(given) :]), True)
        return ids, learnt

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def _broken(self, text: str) -> list[int]:
        return self._breaking.encode(text, add_special_tokens=False).ids

    @staticmethod
    def _add(ids: list[int], learnt: list[bool], new: list[int], is_learnt: bool) -> None:
        ids.extend(new)
        learnt.extend([is_learnt] * len(new))
