"""Looking at an upload before anything of it is kept: nothing in it is executed, and nothing is believed."""

from __future__ import annotations

import msgspec

from penstock.adapters import settings, shapes, tensors
from penstock.adapters.errors import AdapterRefused
from penstock.adapters.shapes import Base
from penstock.adapters.store import Incoming, digest_of


class Examined(msgspec.Struct, frozen=True):
    """An upload that fits its base."""

    base_model: str
    rank: int
    target_modules: list[str]
    config: bytes
    """adapter_config.json as it is kept: written anew from what was understood."""
    digest: str
    size_bytes: int


def examine(incoming: Incoming, config: bytes, base: Base) -> Examined:
    """Check an upload that is on the disk; raises AdapterRefused with the first thing that is wrong."""
    wanted = settings.read(config)
    try:
        found = tensors.read(incoming.weights)
    except tensors.TensorsRefused as error:
        raise AdapterRefused(f"the weights are not accepted: {error}", shapes.WEIGHTS) from None
    modules = shapes.check(wanted, found, base)
    written = wanted.written(modules)
    return Examined(
        base.model,
        wanted.rank,
        modules,
        written,
        digest_of(written, incoming.weights_sha256),
        incoming.size_bytes,
    )
