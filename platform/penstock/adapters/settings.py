"""adapter_config.json as PEFT writes it: what of it counts, and what of it cannot be served.

Whatever is not known and not empty is refused rather than ignored: it might change what the adapter does.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

from penstock.adapters.errors import AdapterRefused

BYTES_MAX: Final = 256 * 1024
FIELD: Final = "config"

WITHOUT_EFFECT: Final = frozenset(
    {
        # About training, or about where the base came from: the shapes say which base it is, not a name.
        *("alora_invocation_string", "arrow_config", "auto_mapping", "base_model_name_or_path"),
        *("corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode"),
        *("layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config"),
        *("megatron_config", "megatron_core", "monteclora_config", "peft_version", "qalora_group_size"),
        *("revision", "runtime_config", "task_type", "velora_config"),
    }
)
PLAIN_STARTS: Final = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Ways to begin training after which the adapter is an ordinary one; the others change the base as well."""
REFUSED: Final = {
    "auto_map": "it names code, and no code of an adapter is ever run",
    "modules_to_save": "only LoRA weights are served: train without modules_to_save",
    "lora_bias": "biases are not served: train with lora_bias=False",
    "use_dora": "DoRA is not served: train with use_dora=False",
    "use_qalora": "QALoRA is not served: train with use_qalora=False",
    "use_bdlora": "block-diagonal LoRA is not served",
    "fan_in_fan_out": "transposed weights are not served: train with fan_in_fan_out=False",
    "layer_replication": "replicated layers are not served",
    "alora_invocation_tokens": "activated LoRA is not served",
    "rank_pattern": "one rank for all modules is served: train without rank_pattern",
    "alpha_pattern": "one alpha for all modules is served: train without alpha_pattern",
    "target_parameters": "only modules are served: train with target_modules",
    "trainable_token_indices": "new or changed tokens are not served",
}


class LoraSettings(msgspec.Struct, frozen=True):
    """What of adapter_config.json counts."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    """As they are written: names of modules, or paths that end in one."""
    use_rslora: bool

    def written(self, target_modules: list[str]) -> bytes:
        """Write adapter_config.json anew, with nothing in it that was not understood."""
        fields = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": int(self.alpha) if self.alpha.is_integer() else self.alpha,
            "target_modules": target_modules,
            "use_rslora": self.use_rslora,
            "bias": "none",
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
        }
        return json.dumps(fields, indent=1, sort_keys=True).encode()


def read(data: bytes) -> LoraSettings:
    """Read a file's content; raises AdapterRefused naming the field of it that is wrong."""
    if len(data) > BYTES_MAX:
        raise _refused(f"it has {len(data)} bytes, and at most {BYTES_MAX} are accepted")
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _refused(f"it is no JSON: {str(error)[:200]}") from None
    if not isinstance(fields, dict):
        raise _refused("it is no JSON object: send the file that PEFT's save_pretrained wrote")
    given = {name: value for name, value in fields.items() if name not in WITHOUT_EFFECT}
    if (kind := given.pop("peft_type", None)) != "LORA":
        raise _refused(f'peft_type is {_shown(kind)}: only "LORA" is accepted')
    settings = LoraSettings(
        rank=_rank(given.pop("r", None)),
        alpha=_alpha(given.pop("lora_alpha", None)),
        target_modules=_modules(given.pop("target_modules", None)),
        use_rslora=_switch("use_rslora", given.pop("use_rslora", False)),
    )
    if (bias := given.pop("bias", "none")) != "none":
        raise _refused(f'bias is {_shown(bias)}: only "none" is accepted; train without biases')
    start = given.pop("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        raise _refused(
            f"init_lora_weights is {_shown(start)}, which changes the base's own weights: convert it "
            "with PEFT's path_initial_model_for_weight_conversion first"
        )
    for name, value in given.items():
        if value in (None, False, "", [], {}):
            continue
        why = REFUSED.get(name, "this field is not known here, so what it does would be missing")
        raise _refused(f"{name[:80]} is {_shown(value)}: {why}")
    return settings


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 512:
        raise _refused(f"r is {_shown(value)}: a whole number from 1 to 512 is accepted")
    return value


def _alpha(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= 65536:
        raise _refused(f"lora_alpha is {_shown(value)}: a number above 0, at most 65536, is accepted")
    return float(value)


def _modules(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise _refused(
            f"target_modules is the pattern {_shown(value)}: list the modules' names instead, such as "
            '["q_proj", "v_proj"]'
        )
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise _refused(f'target_modules is {_shown(value)}: a list such as ["q_proj", "v_proj"] is accepted')
    if len(value) > 4096:
        raise _refused(f"target_modules has {len(value)} names: at most 4096 are accepted")
    return tuple(value)


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused(f"{name} is {_shown(value)}: true or false is accepted")
    return value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:80]}…"


def _refused(problem: str) -> AdapterRefused:
    return AdapterRefused(f"adapter_config.json is not accepted: {problem}", FIELD)
