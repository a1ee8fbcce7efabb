"""The hardware of a machine, as far as engines use it."""

from __future__ import annotations

import msgspec

from penstock_engines import machine
from penstock_engines.spec import Device

GIB = 2**30
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


def find(device: Device, cpu_slots: int | None = None) -> Inventory:
    """Tell what this machine has; `cpu_slots` overrides what its cores suggest."""
    if device is Device.CPU:
        total_bytes, _ = machine.memory_bytes()
        slots = cpu_slots if cpu_slots is not None else SLOTS_PER_CORE * machine.processor().cores
        return Inventory(device=device, cpu_slots=slots, memory_gib=total_bytes / GIB)
    gpus = tuple(Gpu(gpu.index, gpu.memory_mib / 1024) for gpu in machine.gpus())
    return Inventory(device=device, gpus=gpus)
