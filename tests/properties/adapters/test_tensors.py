"""Whatever a file says of itself, it is read as vLLM's own reader reads it, or refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters import tensors

DTYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "f32"])
NUMBERS = st.integers(-4, 40)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file that is nearly right: places follow each other, unless one was moved."""
    fields: dict[str, Any] = {}
    end = 0
    for number in range(draw(st.integers(0, 3))):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        dtype = draw(DTYPES)
        size = tensors.WIDTHS.get(dtype, 1)
        for extent in shape:
            size *= extent
        moved = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 8]))
        fields[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end + moved, end + size]}
        end += size
    header = json.dumps(fields).encode()
    data = bytes(max(0, end + draw(st.sampled_from([0, 0, 0, 1, -1]))))
    said = len(header) + draw(st.sampled_from([0, 0, 0, 1, -1, 2**40]))
    whole = said.to_bytes(8, "little") + header + data
    return draw(st.sampled_from([whole, whole, whole, whole[: len(whole) // 2]]))


@given(files() | st.binary(max_size=300))
def test_what_is_read_is_what_the_format_s_own_library_reads(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.safetensors"
        file.write_bytes(content)
        try:
            found = tensors.read(file)
        except tensors.TensorsRefused:
            return
    theirs = dict(safetensors.deserialize(content))
    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
        name: (each["dtype"], each["shape"]) for name, each in theirs.items()
    }
