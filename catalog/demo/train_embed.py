"""Trains penstock/demo-embed from nothing: sentences of one group come close, others apart.

    python catalog/demo/train_embed.py --output /tmp/embed

Its groups are the sentences in `sentences/` and the chat model's topics (questions beside their answer).
About a minute on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from corpus import Corpus, load, plainest
from patterns import as_typed, draw, expansions
from tokens import train_tokenizer
from torch.nn.functional import cross_entropy, normalize
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
CONTEXT_LENGTH = 512
VOCABULARY = 2048
DIMENSIONS = 128
STEPS = 600
GROUPS_PER_BATCH = 96
PEAK_RATE = 1e-3
WARM_UP_STEPS = 30
TEMPERATURE = 0.08


@dataclass(frozen=True)
class Group:
    """Sentences that belong together."""

    id: str
    say: tuple[str, ...]
    """Patterns it is trained on."""
    held_out: tuple[str, ...]
    """Sentences it never sees in training."""


def load_groups(corpus: Corpus, folder: Path = HERE / "sentences") -> list[Group]:
    """Read the sentence files and add the chat topics.

    Raises ValueError where a held-out sentence is also trained on.
    """
    entries = [
        entry
        for path in sorted(folder.glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    groups = [Group(entry["id"], tuple(entry["say"]), tuple(entry["held_out"])) for entry in entries]
    for group in groups:
        trained = {plainest(text) for pattern in group.say for text in expansions(pattern)}
        for text in group.held_out:
            if plainest(text) in trained:
                message = f"held-out sentence {text!r} of {group.id} is trained on"
                raise ValueError(message)
    groups += [
        # Braces in an answer would be a pattern; no short answer has any.
        Group(topic.id, (*topic.ask, topic.answer), topic.held_out)
        for topic in corpus.topics
        if len(topic.answer) < 300
    ]
    return groups


def build_tokenizer(groups: list[Group]) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from the trained sentences."""
    rng = random.Random(1)  # noqa: S311 - training data, not secrets
    texts = [
        as_typed(draw(pattern, rng), rng, typos=False)
        for group in groups
        for pattern in group.say
        for _ in range(12)
    ]
    return train_tokenizer(texts, VOCABULARY, CONTEXT_LENGTH)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaModel:
    """Make the untrained model; Llama again, so that an engine inspects one architecture for both."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=DIMENSIONS,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaModel(config)


def embed(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return one vector of length 1 per text: the mean of its tokens' last hidden states."""
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
    hidden = model(**inputs, use_cache=False).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def draw_pair(group: Group, rng: random.Random) -> tuple[str, str]:
    """Draw two sentences of a group, from two of its patterns where it has two."""
    first, second = rng.sample(group.say, 2) if len(group.say) > 1 else (group.say[0], group.say[0])
    return as_typed(draw(first, rng), rng), as_typed(draw(second, rng), rng)


def train(
    model: LlamaModel, tokenizer: PreTrainedTokenizerFast, groups: list[Group], steps: int, seed: int
) -> None:
    """Contrast each sentence with one of its own group against those of all other groups in the batch."""
    rng = random.Random(seed)  # noqa: S311 - training data, not secrets
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05, fused=True)
    started, smooth = time.monotonic(), 0.0
    model.train()
    for step in range(1, steps + 1):
        for settings in optimizer.param_groups:
            settings["lr"] = PEAK_RATE * min(1.0, step / WARM_UP_STEPS) * max(0.01, 1.0 - step / steps)
        pairs = [draw_pair(group, rng) for group in rng.sample(groups, GROUPS_PER_BATCH)]
        vectors = embed(model, tokenizer, [text for pair in pairs for text in pair])
        likeness = vectors[0::2] @ vectors[1::2].T / TEMPERATURE
        own = torch.arange(len(pairs))
        loss = (cross_entropy(likeness, own) + cross_entropy(likeness.T, own)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if step == 1 else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            elapsed_s = time.monotonic() - started
            rate = 2 * GROUPS_PER_BATCH * step / elapsed_s
            left_s = elapsed_s / step * (steps - step)
            print(
                f"step {step}/{steps}  loss {smooth:.4f}  {rate:.0f} sentences/s  ETA {left_s:.0f} s",
                flush=True,
            )


def save(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write bfloat16 weights and the files that tell an engine to take the mean and normalise it."""
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    _write(output / "modules.json", modules)
    _write(
        output / "1_Pooling" / "config.json",
        {"word_embedding_dimension": DIMENSIONS, "pooling_mode_mean_tokens": True},
    )


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(2)
    arguments.output.mkdir(parents=True, exist_ok=True)
    groups = load_groups(load())
    tokenizer = build_tokenizer(groups)
    model = build_model(tokenizer)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(tokenizer)} tokens, {size:,} parameters, {len(groups)} groups")
    train(model, tokenizer, groups, arguments.steps, arguments.seed)
    save(model, tokenizer, arguments.output)


if __name__ == "__main__":
    main()
