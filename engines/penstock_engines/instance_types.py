"""Slices of hardware by name: what an engine occupies, and what a minute of it is priced by.

They follow from the hardware: a machine without GPUs is cut into slots with more and more memory, GPUs into
quarters, halves and wholes, and put together into groups.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from penstock_engines.inventory import MEMORY_SHARE, Inventory
from penstock_engines.spec import Device

CPU_GIB = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Memory of the types without a GPU; a machine's largest has all that engines may take."""
GPU_PARTS = (4, 2, 1)


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """One size of a slice."""

    name: str
    device: Device
    memory_gib: float
    """For an engine: of the machine on CPU, of each of its GPUs on GPU."""
    gpus: int = 0
    """Devices it takes, or takes a part of."""

    def holds(self, memory_gib: float, gpus: int) -> bool:
        """Whether an engine that needs so much of each device fits."""
        return self.gpus == gpus and memory_gib <= self.memory_gib

    def __str__(self) -> str:
        """Put it in words."""
        if not self.gpus:
            return f"{self.name} (a CPU slot, {self.memory_gib:.1f} GiB)"
        devices = f"{self.gpus} GPUs" if self.gpus > 1 else "a GPU"
        return f"{self.name} ({self.memory_gib:.1f} GiB of {devices})"


def offered(hardware: Inventory) -> list[InstanceType]:
    """List the types that a machine has, the smallest first."""
    if hardware.device is Device.CPU:
        return _cpu_types(hardware.memory_gib * MEMORY_SHARE)
    return _gpu_types(Counter(gpu.memory_gib for gpu in hardware.gpus))


def smallest(types: list[InstanceType], memory_gib: float, gpus: int) -> InstanceType | None:
    """Find the smallest type that an engine fits into."""
    return next((each for each in types if each.holds(memory_gib, gpus)), None)


def _cpu_types(room_gib: float) -> list[InstanceType]:
    sizes_gib = [float(size) for size in CPU_GIB if size <= room_gib]
    if room_gib >= 1 and (not sizes_gib or int(room_gib) > sizes_gib[-1]):
        sizes_gib.append(room_gib)
    return [InstanceType(name=f"cpu-{int(size)}g", device=Device.CPU, memory_gib=size) for size in sizes_gib]


def _gpu_types(counts: Counter[float]) -> list[InstanceType]:
    types = []
    for memory_gib, count in sorted(counts.items()):
        types += [
            InstanceType(
                name=f"gpu-{memory_gib / parts:.0f}g",
                device=Device.CUDA,
                memory_gib=memory_gib * MEMORY_SHARE / parts,
                gpus=1,
            )
            for parts in GPU_PARTS
        ]
        types += [
            InstanceType(
                name=f"gpu-{group}x{memory_gib:.0f}g",
                device=Device.CUDA,
                memory_gib=memory_gib * MEMORY_SHARE,
                gpus=group,
            )
            for group in range(2, count + 1)
        ]
    return sorted(types, key=lambda each: (each.gpus, each.memory_gib))
