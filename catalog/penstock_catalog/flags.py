"""The vLLM flags a model card may pass: each was reviewed for what it opens, and has the shape of its value.

Not here, on purpose: whatever runs or loads code from elsewhere (trust-remote-code, plugins, classes by
name, a chat template by path), opens a port or a file, or is set by Penstock itself (model, dtype,
max-num-seqs, LoRA, prefix caching, logging).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_COUNT = r"[1-9][0-9]{0,6}"
_WORD = r"[a-z][a-z0-9_]{0,40}"


class Flag(NamedTuple):
    """What one flag accepts: a pattern for the whole value, and the same in words."""

    pattern: str
    accepts: str
    means: str


_SWITCH = Flag("true", '"true"', "")

REVIEWED: dict[str, Flag] = {
    "async-scheduling": _SWITCH._replace(means="plan the next step while the engine computes this one"),
    "block-size": Flag("8|16|32|64|128", '"8", "16", "32", "64" or "128"', "tokens per cache block"),
    "config-format": Flag("auto|hf|mistral", '"auto", "hf" or "mistral"', "whose configuration file to read"),
    "enable-expert-parallel": _SWITCH._replace(means="spread experts, not their matrices, over the GPUs"),
    "enforce-eager": _SWITCH._replace(means="no compiled graphs: a quicker start, slower tokens"),
    "gpu-memory-utilization": Flag(
        r"0\.[0-9]{1,3}", 'a share such as "0.90"', "share of the GPU's memory the engine may take"
    ),
    "kv-cache-dtype": Flag(
        "auto|bfloat16|fp8|fp8_e4m3|fp8_e5m2",
        '"auto", "bfloat16", "fp8", "fp8_e4m3" or "fp8_e5m2"',
        "number format of the cache",
    ),
    "limit-mm-per-prompt": Flag(
        r'\{("(image|audio|video)": ?[0-9]{1,3}(, ?)?){1,3}\}',
        'JSON such as {"image": 4}',
        "most images, sounds or films in one prompt",
    ),
    "load-format": Flag(
        "auto|safetensors|mistral",
        '"auto", "safetensors" or "mistral"',
        "layout of the weights; never pickle",
    ),
    "max-num-batched-tokens": Flag(_COUNT, 'a count such as "8192"', "most tokens computed in one step"),
    "pipeline-parallel-size": Flag(_COUNT, 'a count such as "2"', "GPUs the layers are spread over"),
    "quantization": Flag(
        _WORD, 'a name such as "fp8" or "awq"', "how the weights are packed, where not stated in them"
    ),
    "tensor-parallel-size": Flag(_COUNT, 'a count such as "8"', "GPUs each layer is spread over"),
    "tokenizer-mode": Flag("auto|hf|mistral", '"auto", "hf" or "mistral"', "whose tokenizer to use"),
}


def problem(name: str, value: str) -> str | None:
    """Say what is wrong with one flag of a card's `engine.extra`; None where nothing is."""
    flag = REVIEWED.get(name)
    if flag is None:
        return f"{name!r} is not a reviewed vLLM flag; accepted are: {', '.join(sorted(REVIEWED))}"
    if re.fullmatch(flag.pattern, value) is None:
        return f"{value!r} is not accepted by {name}: {flag.accepts} is"
    return None


def command_line(extra: dict[str, str]) -> list[str]:
    """Write reviewed flags as arguments for `vllm serve`, switches without a value, in a stable order."""
    arguments: list[str] = []
    for name, value in sorted(extra.items()):
        switch = REVIEWED[name].pattern == "true"
        arguments += [f"--{name}"] if switch else [f"--{name}", value]
    return arguments
