"""What `penstock doctor` says of engines: what there is for them, and who finds no place."""

from __future__ import annotations

import pytest

from penstock.local.doctor import Level, hardware_finding, room
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines.inventory import Gpu, Inventory
from penstock_engines.spec import Device

SHELF = Shelf.open([BUILTIN])
CHAT, EMBED, LARGE = (
    SHELF.get(name) for name in ("penstock/demo-chat", "penstock/demo-embed", "meta/llama-3.1-70b-instruct")
)


def machine(slots: int = 4, memory_gib: float = 16.0) -> Inventory:
    return Inventory(device=Device.CPU, cpu_slots=slots, memory_gib=memory_gib)


def test_hardware_is_told_with_its_instance_types_and_how_much_of_the_catalog_fits() -> None:
    finding = hardware_finding(machine(), SHELF.cards)
    assert finding.level is Level.FOUND
    assert finding.found.startswith("4 CPU slots, 14.4 GiB: cpu-2g, cpu-4g, cpu-8g, cpu-14g; ")
    gpus = Inventory(device=Device.CUDA, gpus=(Gpu(0, 80.0), Gpu(1, 80.0)))
    assert hardware_finding(gpus, SHELF.cards).found.startswith("2 GPUs: gpu-20g, ")


@pytest.mark.parametrize(
    ("hardware", "cure"), [(machine(slots=0), "PENSTOCK_CPU_SLOTS"), (machine(memory_gib=1), "memory")]
)
def test_a_machine_on_which_nothing_fits_is_said_with_the_cure(hardware: Inventory, cure: str) -> None:
    finding = hardware_finding(hardware, SHELF.cards)
    assert finding.level is Level.MISSING
    assert "; 0 of " in finding.found
    assert cure in finding.cure


def test_models_with_a_place_are_not_mentioned() -> None:
    assert room(machine(), [CHAT], [EMBED]) == []


def test_models_that_are_kept_need_their_places_together() -> None:
    (finding,) = room(machine(slots=1), [CHAT, EMBED], [])
    assert (finding.subject, finding.level) == (EMBED.id, Level.MISSING)
    assert "all 1 CPU slots are taken" in finding.found


def test_a_model_that_sleeps_needs_one_when_it_wakes() -> None:
    (finding,) = room(machine(slots=1), [CHAT], [EMBED])
    assert (finding.subject, finding.level) == (EMBED.id, Level.NOTE)
    assert "let one of them sleep" in finding.cure


def test_a_model_that_never_fits_is_said_with_what_it_needs() -> None:
    (finding,) = room(machine(), [LARGE], [])
    assert finding.level is Level.MISSING
    assert "GiB of memory; this machine has 14.4 GiB" in finding.found
