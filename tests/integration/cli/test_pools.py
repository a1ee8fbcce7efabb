"""`penstock pools` and `penstock instance-types` as an operator uses them; no controller runs here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from penstock_engines import pools
from penstock_engines.inventory import Inventory
from penstock_engines.spec import Device

Command = Callable[..., Awaitable[Any]]
MODEL = "penstock/demo-chat"


@pytest.fixture
async def hardware(database: asyncpg.Pool) -> None:
    await pools.put_hardware(database, "c", Inventory(device=Device.CPU, cpu_slots=4, memory_gib=12))


async def test_a_pool_is_made_changed_and_removed(penstock: Command, hardware: None) -> None:
    assert "make one with `penstock pools create" in (await penstock("pools", "list")).stdout
    assert "sleeps until asked for" in (await penstock("pools", "create", MODEL)).stdout
    changed = await penstock("pools", "set", MODEL, "--min", "2", "--policy", "least_load")
    assert "2 to 2 engines" in changed.stdout
    (told,) = json.loads((await penstock("pools", "list", "--json")).stdout)
    assert told["pool"]["settings"]["policy"] == "least_load"
    shown = (await penstock("pools", "show", MODEL)).stdout
    assert "replicas_min" in shown
    assert "runs" in shown
    assert "no pool any more" in (await penstock("pools", "remove", MODEL)).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", MODEL, "--min", "-1"), "a whole number from 0 to 1000; nearest: 0"),
        (("set", MODEL, "--min", "3", "--max", "2"), "raise the maximum, or lower the minimum to 2"),
        (("set", MODEL, "--policy", "prefix"), "nearest: prefix_affinity"),
        (("set", MODEL, "--set", "colour=blue"), "there is no setting 'colour'"),
        (("set", MODEL, "--set", "instance_type=gpu-80g"), "the smallest that holds it is cpu-2g"),
        (("set", "penstock/demo-cat"), "penstock/demo-chat"),
        (("create", MODEL), "has a pool already"),
        (("create", "deepseek-ai/deepseek-v3"), "GiB"),
        (("rollback", MODEL), "others that it could run: none"),
        (("roll", MODEL), "change the card first"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_could(
    penstock: Command, hardware: None, arguments: tuple[str, ...], says: str
) -> None:
    await penstock("pools", "create", MODEL)
    refused = await penstock("pools", *arguments, status=1)
    assert says in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


async def test_instance_types_follow_from_the_hardware_and_have_prices(
    penstock: Command, hardware: None
) -> None:
    listed = (await penstock("instance-types", "list")).stdout
    assert "cpu-10g" in listed
    assert "penstock prices minute instance cpu-2g" in listed
    await penstock("prices", "minute", "instance", "cpu-2g", "--per-hour", "0.12")
    told = json.loads((await penstock("instance-types", "list", "--json")).stdout)
    assert [(one["name"], one["nano_usd_per_hour"]) for one in told] == [
        ("cpu-2g", 120_000_000),
        ("cpu-4g", None),
        ("cpu-8g", None),
        ("cpu-10g", None),
    ]
    assert (
        "it fits: cpu-2g (a CPU slot, 2.0 GiB), cpu-4g"
        in (await penstock("instance-types", "fit", MODEL, columns=200)).stdout
    )


async def test_without_a_controller_no_hardware_is_known(penstock: Command) -> None:
    refused = await penstock("instance-types", "list", status=1)
    assert "is `penstock up` running?" in refused.stderr
