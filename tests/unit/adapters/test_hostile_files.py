"""Files that nobody should load are refused, with a reason that says what to do."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters import intake, tensors
from penstock.adapters.errors import AdapterRefused
from penstock.adapters.shapes import Base
from penstock.adapters.store import Store

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


class Bomb:
    """Shows that it was loaded."""

    loaded = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "loaded", True)


def zipped() -> bytes:
    """What torch.save makes: a zip archive with a pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    return buffer.getvalue()


def with_header(make: Any, change: Callable[[dict[str, Any]], Any]) -> bytes:
    fields = make.header(make.shapes())
    data = bytes(max(each["data_offsets"][1] for each in fields.values()))
    changed = change(fields)
    return bytes(make.file(fields if changed is None else changed, data))


def grown(size: int) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        fields[FIRST]["data_offsets"][1] += size

    return change


def set_(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields[FIRST].update(values)


def twice(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields)
    return f"{text[:-1]}, {json.dumps(FIRST)}: {json.dumps(fields[FIRST])}}}".encode()


HOSTILE: dict[str, tuple[Callable[[Any], bytes], str]] = {
    "a pickle": (lambda make: pickle.dumps(Bomb()), "Python pickle"),
    "an old pickle": (lambda make: pickle.dumps(Bomb(), protocol=0), "no safetensors file"),
    "torch.save": (lambda make: zipped(), "zip archive"),
    "nothing": (lambda make: b"", "no safetensors file"),
    "seven bytes": (lambda make: b"\x10" + bytes(6), "no safetensors file"),
    "a header of an exabyte": (lambda make: b"\xff" * 7 + b"\x00{" + bytes(99), "no safetensors file"),
    "a header longer than the file": (lambda make: (9999).to_bytes(8, "little") + b"{}", "cut off"),
    "a header that is no JSON": (lambda make: make.file(b"{nonsense}", b""), "no JSON"),
    "a header as deep as the sea": (lambda make: make.file(b'{"a":' + b"[" * 100_000, b""), "no JSON"),
    "a name twice": (lambda make: with_header(make, twice), "there twice"),
    "no tensors": (lambda make: make.file({}), "no tensors"),
    "metadata that is code": (
        lambda make: make.file({"__metadata__": {"x": ["y"]}}, b""),
        "__metadata__ is no mapping",
    ),
    "overlapping tensors": (lambda make: with_header(make, grown(4096)), "its place has"),
    "numbers of 64 bits": (lambda make: with_header(make, set_(dtype="F64")), "not accepted"),
    "a shape of nothing": (lambda make: with_header(make, set_(shape=[0, 256])), "not accepted"),
    "a shape beyond counting": (lambda make: with_header(make, set_(shape=[2**31 - 1] * 8)), "takes"),
    "a negative shape": (lambda make: with_header(make, set_(shape=[-4, -256])), "not accepted"),
    "a shape that is infinite": (lambda make: make.file(b'{"a": Infinity}', b""), "no number of JSON"),
    "fractions of a number": (lambda make: with_header(make, set_(shape=[4.5, 256])), "not accepted"),
    "an unknown field": (lambda make: with_header(make, set_(code="import os")), "not accepted"),
    "a place before the file": (
        lambda make: with_header(make, set_(data_offsets=[-8, 4088])),
        "not accepted",
    ),
    "a place behind the file": (
        lambda make: with_header(make, set_(data_offsets=[2**40, 2**40 + 4096])),
        "begins at",
    ),
    "a tail": (lambda make: make.file() + zipped(), "nothing else belongs in it"),
    "half of it": (lambda make: make.file()[:-100], "cut off"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(kind: str, make: Any, tmp_path: Path) -> None:
    content, reason = HOSTILE[kind]
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(content(make))
    with pytest.raises(tensors.TensorsRefused, match=reason):
        tensors.read(file)
    assert not Bomb.loaded


def test_a_good_file_whose_size_looks_like_a_pickle_is_read(make: Any, tmp_path: Path) -> None:
    """A header of 640 bytes begins as a pickle of protocol 2 does."""
    fields = make.header({FIRST: [4, 256]})
    text = json.dumps(fields).encode()
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(make.file(text + b" " * (640 - len(text)), bytes(4096)))
    assert file.read_bytes()[:2] == b"\x80\x02"
    assert tensors.read(file)[FIRST].shape == [4, 256]


@pytest.mark.parametrize("name", ["adapter_model.bin", "x.PT", "weights.ckpt", "a.pkl", "model.pth"])
def test_a_pickled_format_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(tensors.TensorsRefused, match="pickled objects"):
        tensors.check_name(name)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type"),
    "no rank": ({"r": ...}, "r is null"),
    "rank zero": ({"r": 0}, "r is 0"),
    "a rank that is true": ({"r": True}, "r is true"),
    "a rank above the model's": ({"r": 32}, "rank 16 at most"),
    "an endless alpha": ({"lora_alpha": 1e308}, "lora_alpha"),
    "a pattern for modules": ({"target_modules": "all-linear"}, "list the modules"),
    "a module that is not there": ({"target_modules": ["q_proj", "c_attn"]}, "'c_attn'"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "biases": ({"bias": "all"}, "bias"),
    "code": ({"auto_map": {"AutoModel": "evil.Model"}}, "no code"),
    "DoRA": ({"use_dora": True}, "use_dora"),
    "ranks by module": ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
    "a start that changes the base": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "something unheard of": ({"use_time_travel": {"on": True}}, "not known here"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_cannot_be_served_is_refused_by_field(
    kind: str, make: Any, base: Base, tmp_path: Path
) -> None:
    changed, reason = CONFIGS[kind]
    with Store(tmp_path).receive() as incoming:
        incoming.write(make.file())
        incoming.close()
        with pytest.raises(AdapterRefused, match=reason) as refused:
            intake.examine(incoming, make.config(**changed), base)
    assert refused.value.field == "config"


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"{" * 9000, b"[" * 200_000, b'{"a":1}' * 99_999])
def test_a_config_that_is_none_is_refused(data: bytes, make: Any, base: Base, tmp_path: Path) -> None:
    with Store(tmp_path).receive() as incoming:
        incoming.write(make.file())
        incoming.close()
        with pytest.raises(AdapterRefused, match=r"adapter_config\.json"):
            intake.examine(incoming, data, base)
