"""The hardware of a machine, what an engine takes of it, and whether it fits.

On CPU an engine takes memory and a slot: two engines on one core halve each other's speed, so there are only
so many. On GPU it takes whole devices where it needs more than one, else a share of one device's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock_catalog.cards import ModelCard
from penstock_engines import machine
from penstock_engines.spec import Device

GIB = 2**30
CPU_OVERHEAD_GIB = 1.2
"""What an engine process takes beside weights and cache: measured 0.9 to 1.1 with the demo models."""
MEMORY_SHARE = 0.9
"""How much of a machine's or a GPU's memory engines may take."""


SLOTS_PER_CORE = 2
"""Engines per core: a demonstration engine is idle most of the time."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU."""

    index: int
    memory_gib: float


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has for engines."""

    device: Device
    cpu_slots: int = 0
    memory_gib: float = 0.0
    gpus: tuple[Gpu, ...] = ()


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine takes."""

    memory_gib: float
    """Of the machine on CPU, of each of its GPUs on GPU."""
    gpus: tuple[int, ...] = ()
    gpu_share: float = MEMORY_SHARE
    """Of each of those GPUs' memory."""


class DoesNotFit(Exception):
    """An engine for which there is no place; the message says what it needs and what there is."""

    def __init__(self, message: str, *, ever: bool) -> None:
        """`ever`: it would fit if nothing else ran."""
        super().__init__(message)
        self.ever = ever


def find(device: Device, cpu_slots: int | None = None) -> Inventory:
    """Tell what this machine has; `cpu_slots` overrides what its cores suggest."""
    if device is Device.CPU:
        total_bytes, _ = machine.memory_bytes()
        slots = cpu_slots if cpu_slots is not None else SLOTS_PER_CORE * machine.processor().cores
        return Inventory(device=device, cpu_slots=slots, memory_gib=total_bytes / GIB)
    gpus = tuple(Gpu(gpu.index, gpu.memory_mib / 1024) for gpu in machine.gpus())
    return Inventory(device=device, gpus=gpus)


def place(inventory: Inventory, taken: Sequence[Claim], card: ModelCard) -> Claim:
    """Find a place for one engine of a model; raises DoesNotFit."""
    if inventory.device is Device.CPU:
        return _place_on_cpu(inventory, taken, card)
    return _place_on_gpus(inventory, taken, card)


def cpu_memory_gib(card: ModelCard) -> float:
    """What an engine of the model takes of a machine without GPUs."""
    weights_gib = card.parameters * card.weight_bits / 8 / GIB
    return weights_gib + card.engine.kv_cache_mib / 1024 + CPU_OVERHEAD_GIB


def _place_on_cpu(inventory: Inventory, taken: Sequence[Claim], card: ModelCard) -> Claim:
    need_gib = cpu_memory_gib(card)
    room_gib = inventory.memory_gib * MEMORY_SHARE
    free_gib = room_gib - sum(claim.memory_gib for claim in taken)
    if need_gib > room_gib:
        raise DoesNotFit(
            f"{card.id} needs {need_gib:.1f} GiB of memory; this machine has {room_gib:.1f} GiB for engines",
            ever=False,
        )
    if need_gib > free_gib:
        raise DoesNotFit(
            f"{card.id} needs {need_gib:.1f} GiB of memory; {free_gib:.1f} of {room_gib:.1f} GiB are free "
            f"beside {len(taken)} engines",
            ever=True,
        )
    if len(taken) >= inventory.cpu_slots:
        raise DoesNotFit(
            f"all {inventory.cpu_slots} CPU slots are taken: stop an engine, or raise PENSTOCK_CPU_SLOTS",
            ever=inventory.cpu_slots > 0,
        )
    return Claim(memory_gib=need_gib)


def _place_on_gpus(inventory: Inventory, taken: Sequence[Claim], card: ModelCard) -> Claim:
    need_gib = card.gpu_memory_gib
    count = max(1, int(card.engine.extra.get("tensor-parallel-size", "1")))
    each_gib = need_gib / count
    rooms = {gpu.index: gpu.memory_gib * MEMORY_SHARE for gpu in inventory.gpus}
    able = [index for index, room_gib in rooms.items() if each_gib <= room_gib]
    if len(able) < count:
        largest = max(rooms.values(), default=0.0)
        raise DoesNotFit(
            f"{card.id} needs {each_gib:.1f} GiB on each of {count} GPU{'s' * (count > 1)}; this machine has "
            f"{len(rooms)}, with up to {largest:.1f} GiB for engines"
            + (": set tensor-parallel-size higher" if len(rooms) > count else ""),
            ever=False,
        )
    free = dict(rooms)
    for claim in taken:
        for index in claim.gpus:
            free[index] -= claim.memory_gib
    # The fullest that still has room: large models then find empty GPUs.
    open_gpus = sorted((index for index in able if each_gib <= free[index]), key=lambda index: free[index])
    if len(open_gpus) < count:
        raise DoesNotFit(
            f"{card.id} needs {each_gib:.1f} GiB on each of {count} GPU{'s' * (count > 1)}; free are "
            + ", ".join(f"{free[index]:.1f}" for index in able),
            ever=True,
        )
    chosen = tuple(open_gpus[:count])
    total_gib = min(gpu.memory_gib for gpu in inventory.gpus if gpu.index in chosen)
    return Claim(memory_gib=each_gib, gpus=chosen, gpu_share=each_gib / total_gib)
