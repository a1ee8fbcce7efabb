"""Writes a small LoRA adapter of the demo chat model, as PEFT writes one: `python adapter.py FOLDER [SEED]`.

It is not trained: its numbers are chance, the same for the same seed, and large enough that answers visibly
change. It needs nothing but Python, and shows what `penstock adapters upload` takes.
"""

from __future__ import annotations

import json
import random
import sys
from array import array
from pathlib import Path

RANK = 4
ALPHA = 8
STRENGTH = 0.15
MODULES = {"q_proj": (256, 256), "v_proj": (256, 256), "o_proj": (256, 256)}
"""Of catalog/demo/chat/config.json: the sizes of each module's input and output."""
LAYERS = 4


def write(folder: Path, seed: int = 0) -> Path:
    """Write adapter_config.json and adapter_model.safetensors into a folder; returns it."""
    chance = random.Random(seed)  # noqa: S311 - weights, not secrets
    header, data = {}, bytearray()
    for layer in range(LAYERS):
        for module, (size_in, size_out) in MODULES.items():
            for side, shape in (("A", [RANK, size_in]), ("B", [size_out, RANK])):
                numbers = array("f", (chance.gauss(0, STRENGTH) for _ in range(shape[0] * shape[1])))
                if sys.byteorder == "big":
                    numbers.byteswap()
                begin = len(data)
                data += numbers.tobytes()
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.weight"
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    content = len(text).to_bytes(8, "little") + text + bytes(data)
    (folder / "adapter_model.safetensors").write_bytes(content)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "penstock/demo-chat",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(MODULES),
        "bias": "none",
        "lora_dropout": 0.0,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    return folder


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), *(int(seed) for seed in sys.argv[2:3])))
