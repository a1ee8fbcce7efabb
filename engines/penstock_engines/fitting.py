"""Whether a model would run on a machine, and on which of its instance types, if nothing else ran there."""

from __future__ import annotations

import msgspec

from penstock_catalog.cards import ModelCard
from penstock_engines import instance_types, placing
from penstock_engines.instance_types import InstanceType
from penstock_engines.inventory import Inventory
from penstock_engines.placing import DoesNotFit


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine of a model takes, and where it finds that."""

    memory_gib: float
    """Of the machine on CPU, of each of its GPUs on GPU."""
    gpus: int
    """Over how many it is spread; 0 on CPU."""
    smallest: InstanceType | None
    """That holds it."""
    problem: str | None
    """Why no engine of it will ever run here; None: one will."""
    types: list[tuple[InstanceType, str | None]]
    """Every type there is here, and why it does not hold the model where it does not."""


def fit(hardware: Inventory, card: ModelCard) -> Fit:
    """Try the model on everything that a machine has."""
    gpus = placing.gpus_on(hardware, card)
    need_gib = card.gpu_memory_gib / gpus if gpus else placing.cpu_memory_gib(card)
    types = instance_types.offered(hardware)
    return Fit(
        memory_gib=need_gib,
        gpus=gpus,
        smallest=instance_types.smallest(types, need_gib, gpus),
        problem=_problem(hardware, card),
        types=[(each, _why_not(each, need_gib, gpus)) for each in types],
    )


def _problem(hardware: Inventory, card: ModelCard) -> str | None:
    try:
        placing.place(hardware, [], card)
    except DoesNotFit as reason:
        return str(reason)
    return None


def _why_not(each: InstanceType, need_gib: float, gpus: int) -> str | None:
    if each.holds(need_gib, gpus):
        return None
    if each.gpus != gpus:
        return f"the model is spread over {gpus} GPU{'s' * (gpus != 1)}"
    return f"{need_gib - each.memory_gib:.1f} GiB too small"
