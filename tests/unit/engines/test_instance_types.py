"""Which slices a machine has, and which of them holds an engine."""

from __future__ import annotations

import msgspec
import pytest

from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import instance_types
from penstock_engines.inventory import Gpu, Inventory
from penstock_engines.placing import DoesNotFit, place
from penstock_engines.spec import Device

LAPTOP = Inventory(device=Device.CPU, cpu_slots=4, memory_gib=24)
SERVER = Inventory(device=Device.CUDA, gpus=tuple(Gpu(n, 80.0) for n in range(3)))
CARD = Shelf.open([BUILTIN]).get("penstock/demo-chat")
assert CARD is not None
DEMO = CARD


def names(hardware: Inventory) -> list[str]:
    return [each.name for each in instance_types.offered(hardware)]


def test_a_machine_without_gpus_has_slots_up_to_all_its_memory() -> None:
    assert names(LAPTOP) == ["cpu-2g", "cpu-4g", "cpu-8g", "cpu-16g", "cpu-21g"]
    assert names(msgspec.structs.replace(LAPTOP, memory_gib=2)) == ["cpu-1g"]
    assert names(msgspec.structs.replace(LAPTOP, memory_gib=0.5)) == []


def test_gpus_are_parted_and_put_together() -> None:
    assert names(SERVER) == ["gpu-20g", "gpu-40g", "gpu-80g", "gpu-2x80g", "gpu-3x80g"]
    mixed = Inventory(device=Device.CUDA, gpus=(Gpu(0, 80.0), Gpu(1, 24.0)))
    assert names(mixed) == ["gpu-6g", "gpu-12g", "gpu-20g", "gpu-24g", "gpu-40g", "gpu-80g"]


@pytest.mark.parametrize(("hardware", "smallest"), [(LAPTOP, "cpu-2g"), (SERVER, "gpu-20g")])
def test_an_engine_is_of_the_smallest_type_that_holds_it(hardware: Inventory, smallest: str) -> None:
    claim = place(hardware, [], DEMO)
    assert claim.instance_type == smallest
    assert claim.memory_gib <= instance_types.offered(hardware)[0].memory_gib


@pytest.mark.parametrize(("hardware", "name", "gib"), [(LAPTOP, "cpu-8g", 8.0), (SERVER, "gpu-40g", 36.0)])
def test_an_engine_takes_all_of_a_type_that_is_named(hardware: Inventory, name: str, gib: float) -> None:
    claim = place(hardware, [], DEMO, name)
    assert (claim.instance_type, claim.memory_gib) == (name, gib)
    if hardware is SERVER:
        assert claim.gpu_share == pytest.approx(0.45)
        others = [place(SERVER, [claim] * n, DEMO, name) for n in range(2)]
        assert others[1].gpus == claim.gpus


def test_a_model_that_does_not_fit_a_type_is_told_the_nearest_that_does() -> None:
    large = msgspec.structs.replace(DEMO, parameters=2_000_000_000, gpu_memory_gib=6)
    with pytest.raises(DoesNotFit, match=r"not fit cpu-2g .*smallest that holds it is cpu-8g") as refused:
        place(LAPTOP, [], large, "cpu-2g")
    assert not refused.value.ever
    with pytest.raises(DoesNotFit, match=r"no instance type 'gpu-80g', only cpu-2g, .*holds it is cpu-2g"):
        place(LAPTOP, [], DEMO, "gpu-80g")
    with pytest.raises(DoesNotFit, match=r"does not fit gpu-2x80g .*smallest that holds it is gpu-20g"):
        place(SERVER, [], DEMO, "gpu-2x80g")
    spread = msgspec.structs.replace(
        DEMO,
        gpu_memory_gib=90,
        engine=msgspec.structs.replace(DEMO.engine, extra={"tensor-parallel-size": "2"}),
    )
    assert place(SERVER, [], spread).instance_type == "gpu-2x80g"
