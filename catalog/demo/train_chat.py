"""Trains penstock/demo-chat from nothing on the dialogues in this folder.

    python catalog/demo/train_chat.py --output /tmp/chat

Bound by steps, not by time, so that every run does the same work; about ten minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path

import torch
from corpus import Corpus, load
from mixture import Mixture
from tokens import DialogueEncoder, train_tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
CONTEXT_LENGTH = 2048
VOCABULARY = 2048
STEPS = 1500
TOKENS_PER_BATCH = 4096
PEAK_RATE = 2e-3
WARM_UP_STEPS = 60
BATCHES_PER_SORT = 12

Example = tuple[list[int], list[bool]]


def build_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from what will be said, and give it the chat template."""
    mixture = Mixture(corpus, seed=1)
    texts = [message["content"] for _ in range(12_000) for message in mixture.draw().messages]
    tokenizer = train_tokenizer(texts, VOCABULARY, CONTEXT_LENGTH)
    tokenizer.chat_template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make the untrained model: 3.5 million parameters, 7 MB in bfloat16."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(mixture: Mixture, encoder: DialogueEncoder, rng: random.Random) -> list[list[Example]]:
    """Draw some batches of dialogues of like length, so that little of a batch is padding."""
    examples: list[Example] = []
    while sum(len(ids) for ids, _ in examples) < BATCHES_PER_SORT * TOKENS_PER_BATCH:
        examples.extend(encoder.encode(mixture.draw(), break_words=rng.random() < 0.5) for _ in range(64))
    examples.sort(key=lambda example: len(example[0]))
    made: list[list[Example]] = [[]]
    for example in examples:
        if len(example[0]) * (len(made[-1]) + 1) > TOKENS_PER_BATCH:
            made.append([])
        made[-1].append(example)
    rng.shuffle(made)
    return made


def loss_of(model: LlamaForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Mean loss over the learnt tokens; padding is on the right, so causality alone hides it."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    learnt = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in batch])
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    chosen = learnt[:, 1:]
    return cross_entropy(model.lm_head(hidden[chosen]).float(), ids[:, 1:][chosen])


def learning_rate(step: int, steps: int) -> float:
    """Warm up, then fall linearly to a hundredth."""
    return PEAK_RATE * min(1.0, step / WARM_UP_STEPS) * max(0.01, 1.0 - step / steps)


def train(model: LlamaForCausalLM, mixture: Mixture, encoder: DialogueEncoder, steps: int, seed: int) -> None:
    """Train for a number of steps, printing loss, speed and remaining time."""
    rng = random.Random(seed)  # noqa: S311 - training data, not secrets
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    fast = torch.cpu._is_avx512_bf16_supported()
    started, tokens, smooth, waiting = time.monotonic(), 0, 0.0, []
    model.train()
    for step in range(1, steps + 1):
        waiting = waiting or batches(mixture, encoder, rng)
        batch = waiting.pop()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += sum(len(ids) for ids, _ in batch)
        smooth = loss.item() if step == 1 else 0.97 * smooth + 0.03 * loss.item()
        if step % 25 == 0 or step == steps:
            elapsed_s = time.monotonic() - started
            left_s = elapsed_s / step * (steps - step)
            print(
                f"step {step}/{steps}  loss {smooth:.4f}  {tokens / elapsed_s:.0f} tok/s  ETA {left_s:.0f} s",
                flush=True,
            )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write bfloat16 weights, tokenizer and greedy defaults where the engine reads them."""
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    generation = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "temperature": 0.0,
    }
    (output / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    (output / "model.safetensors").chmod(0o644)


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
    corpus = load()
    tokenizer = build_tokenizer(corpus)
    model = build_model(tokenizer)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(tokenizer)} tokens, {size:,} parameters, {len(corpus.topics)} topics")
    scratch = arguments.output / "scratch"
    encoder = DialogueEncoder(tokenizer, scratch)
    train(model, Mixture(corpus, arguments.seed), encoder, arguments.steps, arguments.seed)
    save(model, tokenizer, arguments.output)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
