"""Which modules of a base an adapter may touch, and how large its matrices must be there.

The base is what its config.json says; what an adapter says of its base is not believed. W becomes W + B @ A,
with A of (rank, W's input) and B of (W's output, rank) (LoRA: Hu and others, 2021, section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from penstock.adapters.errors import AdapterRefused
from penstock.adapters.settings import LoraSettings
from penstock.adapters.tensors import Tensor
from penstock_catalog.cards import FolderSource, ModelCard, Task

SPLIT: Final = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma2ForCausalLM"}
)
"""Architectures whose attention has q_proj, k_proj and v_proj."""
FUSED: Final = frozenset({"Phi3ForCausalLM"})
"""Architectures whose attention has one qkv_proj."""
WEIGHTS: Final = "weights"

TENSOR: Final = re.compile(
    r"base_model\.model\.model\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\."
    r"(?P<block>self_attn|mlp)\.(?P<module>[a-z_]{1,40})\.lora_(?P<side>[AB])\.weight"
)
"""How PEFT names the two matrices of a module."""


class BaseConfig(msgspec.Struct, frozen=True):
    """What of a base's config.json decides its modules' sizes."""

    architectures: list[str]
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None


class Base(msgspec.Struct, frozen=True):
    """A base as adapters meet it."""

    model: str
    layers: int
    rank_max: int
    modules: dict[str, tuple[int, int]]
    """`self_attn.q_proj` and its like, with the sizes of their input and output."""

    @property
    def names(self) -> list[str]:
        """The modules' own names."""
        return sorted(path.rpartition(".")[2] for path in self.modules)


def takers(cards: Iterable[ModelCard]) -> list[str]:
    """The models among them that take adapters."""
    return [card.id for card in cards if card.task is Task.CHAT and card.engine.adapter_rank_max]


def base_of(card: ModelCard, models_folder: Path, others: Iterable[ModelCard] = ()) -> Base:
    """Describe a base; raises AdapterRefused where it takes no adapters, or is not on this machine.

    `others` are models to name instead of one that takes none.
    """
    if not takers([card]):
        those = f"; those that do: {', '.join(found)}" if (found := takers(others)) else ""
        raise AdapterRefused(f"{card.id} takes no adapters{those}", "model")
    if isinstance(card.source, FolderSource):
        folder = Path(card.source.path)
    else:
        folder = models_folder / card.file_stem / (card.source.revision or "")
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=BaseConfig)
    except FileNotFoundError:
        raise AdapterRefused(
            f"the weights of {card.id} are not on this machine yet, so nothing can be compared with them: "
            f"call the model once, and upload again when it has answered",
            "model",
        ) from None
    except msgspec.MsgspecError as error:
        raise AdapterRefused(f"{card.id} takes no adapters: its config.json has {error}", "model") from None
    return Base(card.id, config.num_hidden_layers, card.engine.adapter_rank_max, _modules(card.id, config))


def _modules(model: str, config: BaseConfig) -> dict[str, tuple[int, int]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    head = config.head_dim or hidden // config.num_attention_heads
    queries = config.num_attention_heads * head
    keys = (config.num_key_value_heads or config.num_attention_heads) * head
    common = {"self_attn.o_proj": (queries, hidden), "mlp.down_proj": (inner, hidden)}
    if SPLIT.intersection(config.architectures):
        return common | {
            "self_attn.q_proj": (hidden, queries),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
            "mlp.gate_proj": (hidden, inner),
            "mlp.up_proj": (hidden, inner),
        }
    if FUSED.intersection(config.architectures):
        return common | {
            "self_attn.qkv_proj": (hidden, queries + 2 * keys),
            "mlp.gate_up_proj": (hidden, 2 * inner),
        }
    raise AdapterRefused(
        f"{model} is a {', '.join(config.architectures)}, and adapters are served for "
        f"{', '.join(sorted(SPLIT | FUSED))}",
        "model",
    )


def check(settings: LoraSettings, tensors: Mapping[str, Tensor], base: Base) -> list[str]:
    """Check an adapter against its base; the names of the modules it touches.

    Raises AdapterRefused naming the first tensor that does not fit, and what was expected.
    """
    if settings.rank > base.rank_max:
        raise AdapterRefused(
            f"r is {settings.rank}: {base.model} takes adapters of rank {base.rank_max} at most", "config"
        )
    allowed = {each.rpartition(".")[2] for each in settings.target_modules}
    if unknown := sorted(allowed - set(base.names)):
        raise AdapterRefused(
            f"target_modules has {unknown[0][:80]!r}: {base.model} has {', '.join(base.names)}", "config"
        )
    seen: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        path, side = _check_one(name, tensor, settings.rank, base, allowed)
        seen.setdefault(path, set()).add(side)
    if half := next((path for path, sides in seen.items() if len(sides) < 2), None):
        missing = "B" if "A" in seen[half] else "A"
        raise AdapterRefused(f"{half}.lora_{missing}.weight is missing beside its other half", WEIGHTS)
    return sorted({path.rpartition(".")[2] for path in seen})


def _check_one(name: str, tensor: Tensor, rank: int, base: Base, allowed: set[str]) -> tuple[str, str]:
    """Check one tensor; the path of its module, and which of the two matrices it is."""
    found = TENSOR.fullmatch(name)
    module = f"{found['block']}.{found['module']}" if found is not None else ""
    if found is None or module not in base.modules:
        raise AdapterRefused(
            f"the tensor {name[:120]!r} belongs to nothing that {base.model} has: its modules are "
            f"{', '.join(sorted(base.modules))} of base_model.model.model.layers.N, each with lora_A.weight "
            "and lora_B.weight",
            WEIGHTS,
        )
    if int(found["layer"]) >= base.layers:
        raise AdapterRefused(
            f"the tensor {name!r} belongs to layer {found['layer']}, and {base.model} has layers 0 to "
            f"{base.layers - 1}: it is an adapter of another base",
            WEIGHTS,
        )
    if found["module"] not in allowed:
        raise AdapterRefused(f"the tensor {name!r} is of a module that target_modules does not name", WEIGHTS)
    size_in, size_out = base.modules[module]
    expected = [rank, size_in] if found["side"] == "A" else [size_out, rank]
    if tensor.shape != expected:
        raise AdapterRefused(
            f"the tensor {name!r} has the shape {tensor.shape}, and {base.model} with r = {rank} needs "
            f"{expected}: it is an adapter of another base, or of another rank",
            WEIGHTS,
        )
    return name.rpartition(".lora_")[0], found["side"]
