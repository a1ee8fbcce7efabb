"""The header of a safetensors file, read strictly: names, types, shapes and places of tensors; no weights.

A file is 8 bytes of header size (little endian), the header as JSON, then the tensors' bytes. Everything that
an honest writer never does is refused, so that no two readers of a file can see different things in it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

HEADER_BYTES_MAX: Final = 4 * 2**20
"""A hundred layers with seven adapted modules each have a header of 0.2 MB."""
SIZE_BYTES: Final = 8
WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""Number formats of adapters, and the bytes of one number."""

ZIP: Final = b"PK\x03\x04"
PICKLE: Final = {bytes((0x80, version)) for version in range(1, 6)}
"""The opcode PROTO with its argument, which begins every pickle of protocol 2 and later."""
PICKLED_SUFFIXES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")


class TensorsRefused(Exception):
    """The file is no safetensors file that is accepted here."""


Extent = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Place = Annotated[int, Meta(ge=0, le=2**53)]


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor, without its numbers."""

    dtype: Literal["F32", "F16", "BF16"]
    shape: Annotated[list[Extent], Meta(max_length=8)]
    data_offsets: tuple[Place, Place]

    @property
    def size_bytes(self) -> int:
        """How many bytes its numbers take."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


def read(file: Path) -> dict[str, Tensor]:
    """Every tensor of a file, in the order of its header; raises TensorsRefused with the reason."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(SIZE_BYTES + 1)
        header_size = int.from_bytes(start[:SIZE_BYTES], "little")
        if len(start) <= SIZE_BYTES or start[SIZE_BYTES:] != b"{" or header_size > HEADER_BYTES_MAX:
            raise TensorsRefused(_not_safetensors(start))
        if SIZE_BYTES + header_size > size:
            raise TensorsRefused(
                f"its header says {header_size} bytes and the file has {size}: it is cut off"
            )
        opened.seek(SIZE_BYTES)
        header = opened.read(header_size)
    tensors = _tensors(header)
    _check_places(tensors, size - SIZE_BYTES - header_size)
    return tensors


def check_name(name: str) -> None:
    """Raise TensorsRefused for a file that its own name says is pickled."""
    if name.lower().endswith(PICKLED_SUFFIXES):
        raise TensorsRefused(
            f"{name[:80]!r} is a format that holds pickled objects: loading one can run code, so none is "
            "opened here; save the adapter as safetensors (`save_pretrained(…, safe_serialization=True)`)"
        )


def _not_safetensors(start: bytes) -> str:
    if start.startswith(ZIP):
        found = "a zip archive, as torch.save writes it, and such archives hold pickled objects"
    elif start[:2] in PICKLE:
        found = "a Python pickle"
    else:
        return "it is no safetensors file: its first bytes are no header of one"
    return (
        f"it is {found}: loading it can run code, so it is not opened; save the adapter as safetensors "
        "(`save_pretrained(…, safe_serialization=True)`)"
    )


def _tensors(header: bytes) -> dict[str, Tensor]:
    try:
        fields: dict[str, Any] = json.loads(header, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TensorsRefused(f"its header is no JSON: {str(error)[:200]}") from None
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TensorsRefused("its header's __metadata__ is no mapping of text to text")
    if not fields:
        raise TensorsRefused("it has no tensors")
    tensors = {}
    for name, value in fields.items():
        try:
            tensors[name] = msgspec.convert(value, Tensor, strict=True)
        except msgspec.ValidationError as error:
            raise TensorsRefused(
                f"the tensor {name[:120]!r} is not accepted: {error}; tensors are F32, F16 or BF16 with at "
                "least one number"
            ) from None
    return tensors


def _check_places(tensors: dict[str, Tensor], data_bytes: int) -> None:
    """Check that the tensors fill the rest of the file, without a gap or a byte shared."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda pair: pair[1].data_offsets):
        begin, until = tensor.data_offsets
        if until - begin != tensor.size_bytes:
            raise TensorsRefused(
                f"the tensor {name[:120]!r} of shape {tensor.shape} in {tensor.dtype} takes "
                f"{tensor.size_bytes} bytes, and its place has {until - begin}"
            )
        if begin != end:
            what = "shares bytes with another" if begin < end else "leaves a gap before it"
            raise TensorsRefused(f"the tensor {name[:120]!r} {what}: it begins at {begin}, not at {end}")
        end = until
    if end != data_bytes:
        raise TensorsRefused(
            f"its tensors take {end} bytes and {data_bytes} follow the header: it is "
            + ("cut off" if end > data_bytes else "longer than its tensors, and nothing else belongs in it")
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:120]!r} is there twice")
    return fields


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
