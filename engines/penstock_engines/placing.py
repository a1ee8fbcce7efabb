"""Placing an engine on a machine: what it takes, and whether it fits.

On CPU an engine takes memory and a slot: two engines on one core halve each other's speed, so there are only
so many. On GPU it takes whole devices where it needs more than one, else a share of one device's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock_catalog.cards import ModelCard
from penstock_engines import instance_types
from penstock_engines.instance_types import InstanceType
from penstock_engines.inventory import GIB, MEMORY_SHARE, Inventory
from penstock_engines.spec import Device

ROUNDING_GIB = 1e-6
CPU_OVERHEAD_GIB = 1.2
"""What an engine process takes beside weights and cache: measured 0.9 to 1.1 with the demo models."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine takes."""

    memory_gib: float
    """Of the machine on CPU, of each of its GPUs on GPU."""
    gpus: tuple[int, ...] = ()
    gpu_share: float = MEMORY_SHARE
    """Of each of those GPUs' memory."""
    instance_type: str = ""
    """The smallest that holds it, or the one that was asked for."""


class DoesNotFit(Exception):
    """An engine for which there is no place; the message says what it needs and what there is."""

    def __init__(self, message: str, *, ever: bool) -> None:
        """`ever`: it would fit if nothing else ran."""
        super().__init__(message)
        self.ever = ever


def place(
    inventory: Inventory, taken: Sequence[Claim], card: ModelCard, instance_type: str | None = None
) -> Claim:
    """Find a place for one engine of a model, which takes what it needs or all of an instance type.

    Raises DoesNotFit.
    """
    gpus = gpus_on(inventory, card)
    need_gib = card.gpu_memory_gib / gpus if gpus else cpu_memory_gib(card)
    types = instance_types.offered(inventory)
    if instance_type is not None:
        named = _named(types, instance_type, card, need_gib, gpus)
        need_gib = named.memory_gib
    else:
        fitting = instance_types.smallest(types, need_gib, gpus)
        instance_type = fitting.name if fitting is not None else ""
    if inventory.device is Device.CPU:
        return _place_on_cpu(inventory, taken, card, need_gib, instance_type)
    return _place_on_gpus(inventory, taken, card, need_gib, instance_type)


def gpus_on(inventory: Inventory, card: ModelCard) -> int:
    """How many GPUs of a machine an engine of the model takes; 0 where it has none."""
    return 0 if inventory.device is Device.CPU else gpus_of(card)


def gpus_of(card: ModelCard) -> int:
    """Over how many GPUs an engine of the model is spread."""
    return max(1, int(card.engine.extra.get("tensor-parallel-size", "1")))


def fits(inventory: Inventory, taken: Sequence[Claim], claim: Claim) -> bool:
    """Whether the place on GPUs that an engine had is free, for one that wakes up."""
    rooms = {gpu.index: gpu.memory_gib * MEMORY_SHARE for gpu in inventory.gpus}
    for other in taken:
        for index in other.gpus:
            rooms[index] -= other.memory_gib
    return all(claim.memory_gib <= rooms[index] + ROUNDING_GIB for index in claim.gpus)


def weights_gib(card: ModelCard) -> float:
    """What the weights of a model take, wherever they are."""
    return card.parameters * card.weight_bits / 8 / GIB


def cpu_memory_gib(card: ModelCard) -> float:
    """What an engine of the model takes of a machine without GPUs."""
    return weights_gib(card) + card.engine.kv_cache_mib / 1024 + CPU_OVERHEAD_GIB


def _named(types: list[InstanceType], name: str, card: ModelCard, need_gib: float, gpus: int) -> InstanceType:
    """Find the type of a name, if the model fits into it."""
    found = next((each for each in types if each.name == name), None)
    if found is not None and found.holds(need_gib, gpus):
        return found
    fitting = instance_types.smallest(types, need_gib, gpus)
    nearest = f"the smallest that holds it is {fitting}" if fitting is not None else "no type here holds it"
    if found is None:
        names = ", ".join(each.name for each in types) or "none"
        raise DoesNotFit(f"this machine has no instance type {name!r}, only {names}; {nearest}", ever=False)
    needs = f"{need_gib:.1f} GiB" + (f" of {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
    raise DoesNotFit(f"{card.id} needs {needs} and does not fit {found}; {nearest}", ever=False)


def _place_on_cpu(
    inventory: Inventory, taken: Sequence[Claim], card: ModelCard, need_gib: float, instance_type: str
) -> Claim:
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
    return Claim(memory_gib=need_gib, instance_type=instance_type)


def _place_on_gpus(
    inventory: Inventory, taken: Sequence[Claim], card: ModelCard, each_gib: float, instance_type: str
) -> Claim:
    count = gpus_of(card)
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
    return Claim(
        memory_gib=each_gib, gpus=chosen, gpu_share=each_gib / total_gib, instance_type=instance_type
    )
