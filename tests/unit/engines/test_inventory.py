"""Whether an engine fits a machine, and what is said when it does not."""

from __future__ import annotations

import msgspec
import pytest

from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import inventory
from penstock_engines.inventory import Gpu, Inventory
from penstock_engines.placing import Claim, DoesNotFit, cpu_memory_gib, place
from penstock_engines.spec import Device

SHELF = Shelf.open([BUILTIN])
LAPTOP = Inventory(device=Device.CPU, cpu_slots=2, memory_gib=16)
SERVER = Inventory(device=Device.CUDA, gpus=tuple(Gpu(n, 80.0) for n in range(4)))


def card(model: str, **engine: object) -> ModelCard:
    found = SHELF.get(model)
    assert found is not None
    return msgspec.structs.replace(found, engine=msgspec.structs.replace(found.engine, **engine))


DEMO = card("penstock/demo-chat")


def test_a_demo_engine_takes_a_slot_and_what_it_needs() -> None:
    assert place(LAPTOP, [], DEMO) == Claim(memory_gib=cpu_memory_gib(DEMO), instance_type="cpu-2g")


def test_slots_run_out() -> None:
    taken = [Claim(memory_gib=1), Claim(memory_gib=1)]
    with pytest.raises(DoesNotFit, match=r"all 2 CPU slots are taken.*PENSTOCK_CPU_SLOTS") as refused:
        place(LAPTOP, taken, DEMO)
    assert refused.value.ever


def test_memory_that_others_have_is_not_there() -> None:
    with pytest.raises(DoesNotFit, match=r"1\.\d GiB of memory; 0\.4 of 14\.4 GiB are free") as refused:
        place(LAPTOP, [Claim(memory_gib=14)], DEMO)
    assert refused.value.ever


def test_a_model_larger_than_the_machine_never_fits() -> None:
    with pytest.raises(DoesNotFit, match=r"this machine has 14\.4 GiB for engines") as refused:
        place(LAPTOP, [], msgspec.structs.replace(DEMO, parameters=20_000_000_000, gpu_memory_gib=60))
    assert not refused.value.ever


def test_small_models_share_a_gpu_and_large_ones_find_an_empty_one() -> None:
    small = msgspec.structs.replace(DEMO, gpu_memory_gib=20)
    large = msgspec.structs.replace(DEMO, gpu_memory_gib=70)
    first = place(SERVER, [], small)
    second = place(SERVER, [first], small)
    assert first.gpus == second.gpus
    assert second.gpu_share == pytest.approx(0.25)
    third = place(SERVER, [first, second], large)
    assert third.gpus != first.gpus


def test_a_model_over_several_gpus_takes_its_part_of_each() -> None:
    wide = msgspec.structs.replace(
        DEMO, gpu_memory_gib=240, engine=card(DEMO.id, extra={"tensor-parallel-size": "4"}).engine
    )
    claim = place(SERVER, [], wide)
    assert set(claim.gpus) == {0, 1, 2, 3}
    assert claim.memory_gib == 60
    with pytest.raises(DoesNotFit, match=r"free are 12\.0, 12\.0, 12\.0, 12\.0") as refused:
        place(SERVER, [claim], wide)
    assert refused.value.ever


def test_a_model_too_large_for_one_gpu_is_told_to_spread() -> None:
    with pytest.raises(DoesNotFit, match=r"100\.0 GiB on each of 1 GPU; .*tensor-parallel-size") as refused:
        place(SERVER, [], msgspec.structs.replace(DEMO, gpu_memory_gib=100))
    assert not refused.value.ever


def test_this_machine_is_found() -> None:
    here = inventory.find(Device.CPU, cpu_slots=None)
    assert here.cpu_slots >= 2
    assert here.memory_gib > 0.5
    assert inventory.find(Device.CPU, cpu_slots=7).cpu_slots == 7
