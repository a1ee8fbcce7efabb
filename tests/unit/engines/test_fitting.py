"""Whether a model fits a machine, and why not."""

from __future__ import annotations

import msgspec
import pytest

from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines.fitting import fit
from penstock_engines.inventory import Gpu, Inventory
from penstock_engines.spec import Device

SHELF = Shelf.open([BUILTIN])
SMALL_MACHINE = Inventory(device=Device.CPU, cpu_slots=4, memory_gib=8)


def card(model: str) -> ModelCard:
    found = SHELF.get(model)
    assert found is not None
    return found


def test_a_small_model_fits_a_processor_and_the_smallest_type_is_named() -> None:
    found = fit(SMALL_MACHINE, card("penstock/demo-chat"))
    assert found.problem is None
    assert found.gpus == 0
    assert found.smallest is not None
    assert found.smallest.name == "cpu-2g"
    assert all(reason is None for _, reason in found.types)


def test_a_large_one_does_not_and_every_type_says_how_much_is_missing() -> None:
    found = fit(SMALL_MACHINE, card("deepseek-ai/deepseek-r1"))
    assert found.problem is not None
    assert "needs" in found.problem
    assert found.smallest is None
    assert found.types
    assert all(reason is not None and "too small" in reason for _, reason in found.types)


@pytest.mark.parametrize(("gpus", "fits"), [(1, False), (2, True)])
def test_a_model_over_two_gpus_needs_two(gpus: int, fits: bool) -> None:
    one = card("qwen/qwen3-32b")
    engine = msgspec.structs.replace(one.engine, extra={"tensor-parallel-size": "2"})
    spread = msgspec.structs.replace(one, engine=engine)
    machine = Inventory(device=Device.CUDA, gpus=tuple(Gpu(n, 80.0) for n in range(gpus)))
    found = fit(machine, spread)
    assert (found.problem is None) == fits
    assert any(reason == "the model is spread over 2 GPUs" for _, reason in found.types)
