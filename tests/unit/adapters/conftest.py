"""Small adapters of the demo model, written byte by byte, so that every lie in them is ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.shapes import Base, base_of
from penstock_catalog.shelf import BUILTIN, Shelf

MODEL = "penstock/demo-chat"
HIDDEN, LAYERS = 256, 4


def named(layer: int, module: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"


class Maker:
    """Makes the two files of an adapter, right unless told otherwise."""

    def config(self, **changed: Any) -> bytes:
        fields = {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj"],
            "bias": "none",
            "modules_to_save": None,
            "base_model_name_or_path": "whatever/it-says",
            "task_type": "CAUSAL_LM",
            "lora_dropout": 0.05,
        } | changed
        return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()

    def shapes(self, layers: int = LAYERS, hidden: int = HIDDEN, rank: int = 4) -> dict[str, list[int]]:
        found = {}
        for layer in range(layers):
            for module in ("self_attn.q_proj", "self_attn.v_proj"):
                found[named(layer, module, "A")] = [rank, hidden]
                found[named(layer, module, "B")] = [hidden, rank]
        return found

    def header(self, shapes: dict[str, list[int]], dtype: str = "F32") -> dict[str, Any]:
        width, end, fields = {"F32": 4}.get(dtype, 2), 0, {}
        for name, shape in shapes.items():
            size = width
            for extent in shape:
                size *= extent
            fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        return fields

    def file(self, header: dict[str, Any] | bytes | None = None, data: bytes | None = None) -> bytes:
        fields = self.header(self.shapes()) if header is None else header
        if data is None:
            assert isinstance(fields, dict)
            data = bytes(max((each["data_offsets"][1] for each in fields.values()), default=0))
        text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture(scope="session")
def base() -> Base:
    card = Shelf.open([BUILTIN]).get(MODEL)
    assert card is not None
    return base_of(card, Path("/nowhere"))
