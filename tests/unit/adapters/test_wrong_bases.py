"""An adapter of another base is refused by the first tensor that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.adapters import intake, shapes
from penstock.adapters.errors import AdapterRefused
from penstock.adapters.shapes import Base, base_of
from penstock.adapters.store import Store
from penstock_catalog.cards import FolderSource, ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf


def examined(make: Any, base: Base, folder: Path, tensors: dict[str, list[int]], **config: Any) -> Any:
    with Store(folder).receive() as incoming:
        incoming.write(make.file(make.header(tensors)))
        incoming.close()
        return intake.examine(incoming, make.config(**config), base)


def demo(**changed: Any) -> ModelCard:
    card = Shelf.open([BUILTIN]).get("penstock/demo-chat")
    assert card is not None
    return msgspec.structs.replace(card, **changed)


def test_what_fits_is_described_and_its_config_is_written_anew(make: Any, base: Base, tmp_path: Path) -> None:
    found = examined(make, base, tmp_path, make.shapes())
    assert (found.rank, found.target_modules) == (4, ["q_proj", "v_proj"])
    kept = json.loads(found.config)
    assert kept["r"] == 4
    assert "base_model_name_or_path" not in kept


def test_the_name_it_gives_its_base_is_not_believed(make: Any, base: Base, tmp_path: Path) -> None:
    tensors = make.shapes(hidden=512)
    with pytest.raises(AdapterRefused) as refused:
        examined(make, base, tmp_path, tensors, base_model_name_or_path="penstock/demo-chat")
    message = str(refused.value)
    assert "layers.0.self_attn.q_proj.lora_A.weight" in message
    assert "[4, 512]" in message
    assert "[4, 256]" in message
    assert refused.value.field == "weights"


def test_more_layers_than_the_base_has_are_another_base(make: Any, base: Base, tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="layer 4, and penstock/demo-chat has layers 0 to 3"):
        examined(make, base, tmp_path, make.shapes(layers=5))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", "belongs to nothing"),
        ("base_model.model.lm_head.lora_A.weight", "belongs to nothing"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "belongs to nothing"),
        ("base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight", "belongs to nothing"),
        ("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight", "belongs to nothing"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "target_modules does not name"),
    ],
)
def test_a_tensor_of_nothing_is_refused(
    name: str, reason: str, make: Any, base: Base, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        examined(make, base, tmp_path, make.shapes() | {name: [4, 256]})


def test_half_a_module_is_refused(make: Any, base: Base, tmp_path: Path) -> None:
    tensors = make.shapes()
    del tensors["base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight"]
    with pytest.raises(AdapterRefused, match=r"layers\.2\.self_attn\.v_proj\.lora_B\.weight is missing"):
        examined(make, base, tmp_path, tensors)


def test_a_rank_that_is_not_the_tensors_is_refused(make: Any, base: Base, tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match=r"with r = 8 needs \[8, 256\]"):
        examined(make, base, tmp_path, make.shapes(rank=4), r=8)


def test_the_same_content_has_the_same_digest_and_another_alpha_another(
    make: Any, base: Base, tmp_path: Path
) -> None:
    first = examined(make, base, tmp_path, make.shapes())
    again = examined(make, base, tmp_path, make.shapes(), lora_dropout=0.5)
    stronger = examined(make, base, tmp_path, make.shapes(), lora_alpha=16)
    assert first.digest == again.digest != stronger.digest


def test_a_model_that_takes_none_says_so(tmp_path: Path) -> None:
    engine = msgspec.structs.replace(demo().engine, adapter_rank_max=0)
    with pytest.raises(AdapterRefused, match="takes no adapters"):
        base_of(demo(engine=engine), tmp_path)


def test_an_architecture_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "hidden_size": 8, "intermediate_size": 8}
    config |= {"num_attention_heads": 2, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterRefused, match="LlamaForCausalLM"):
        base_of(demo(source=FolderSource(path=str(tmp_path))), tmp_path)


def test_weights_that_are_not_here_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="call the model once"):
        base_of(demo(source=FolderSource(path=str(tmp_path / "none"))), tmp_path)


def test_fused_attention_has_its_own_sizes(tmp_path: Path) -> None:
    config = {"architectures": ["Phi3ForCausalLM"], "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = base_of(demo(source=FolderSource(path=str(tmp_path))), tmp_path)
    assert found.modules["self_attn.qkv_proj"] == (64, 96)
    assert found.modules["mlp.gate_up_proj"] == (64, 256)
    assert shapes.TENSOR.fullmatch("base_model.model.model.layers.0.mlp.gate_up_proj.lora_A.weight")
