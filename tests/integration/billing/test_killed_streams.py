"""Real processes with streams under way, really killed, and their adopters too: each stream is charged once.

By its final record if there is one, else by its last note.

PENSTOCK_SEED=<seed> runs a seed again; it stands in the failure's message.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from penstock_billing import boots, invariants

SEED = int(os.environ.get("PENSTOCK_SEED", "0")) or random.randrange(1, 2**31)
SAID = struct.Struct("<c16sQ")
"""What a gateway says after it did it: N(oted) or F(inal), event id, cost."""

GATEWAY = """
import asyncio, os, random, struct, sys
from pathlib import Path
from penstock_base import ids
from penstock_billing.journal import Journal
from penstock_billing.progress import Progress
from penstock_billing.record import Outcome
from penstock_billing.shipper import Shipper
from penstock_billing.testing import usage_record

url, folder, said, seed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
dice = random.Random(seed)

async def main():
    journal = Journal(folder, part_bytes=64 * 1024, reserve_bytes=16 * 1024)
    progress = Progress(folder, journal.boot_id)
    shipper = Shipper(url, folder, journal)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def say(what, event_id, cost):
        os.write(out, struct.pack("<c16sQ", what, event_id, cost))
    tasks = [asyncio.create_task(journal.run()), asyncio.create_task(shipper.run())]
    streams = {}
    while True:
        for _ in range(20):
            if len(streams) < 40:
                event_id = ids.uuid7_bytes()
                streams[event_id] = 0
                progress.begin(event_id)
            event_id = dice.choice(list(streams))
            streams[event_id] += 1
            cost = streams[event_id]
            if dice.random() < 0.1:
                journal.append(usage_record(event_id=event_id, cost_nano_usd=cost, outcome=Outcome.DONE))
                progress.end(event_id)
                del streams[event_id]
                say(b"F", event_id, cost)
            else:
                progress.note(usage_record(event_id=event_id, cost_nano_usd=cost, outcome=Outcome.RECOVERED))
                say(b"N", event_id, cost)
        await asyncio.sleep(0.001)
        assert not any(task.done() for task in tasks)

asyncio.run(main())
"""

ADOPTER = """
import asyncio, sys
from pathlib import Path
from penstock_billing.shipper import Shipper

print("ready", flush=True)
asyncio.run(Shipper(sys.argv[1], Path(sys.argv[2])).run())
"""

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
COUNTED = frozenset(invariants.Check) - {invariants.Check.COSTS_ARE_REPRODUCED}
"""The costs are made up, so they follow from no price."""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "it ended by itself"
    process.kill()
    process.communicate()


async def test_each_stream_is_charged_once_whoever_is_killed(
    database: asyncpg.Pool, database_url: str, folder: Path, until: Until
) -> None:
    dice = random.Random(SEED)
    with tempfile.TemporaryDirectory() as outside:
        spoken: list[Path] = []
        for life in range(4):
            said = Path(outside) / str(life)
            spoken.append(said)
            gateway = start(GATEWAY, database_url, str(folder), str(said), str(dice.randrange(2**31)))

            async def has_ended_streams(said: Path = said) -> bool:
                return size(said) > 2000 * SAID.size

            await until(has_ended_streams)
            await asyncio.sleep(dice.uniform(0, 0.1))
            kill(gateway)
            for _ in range(2):
                adopter = start(ADOPTER, database_url, str(folder))
                assert adopter.stdout is not None
                await asyncio.to_thread(adopter.stdout.readline)
                # Connecting, recovering and shipping take some 100 ms together.
                await asyncio.sleep(dice.uniform(0, 0.25))
                kill(adopter)
        last = start(ADOPTER, database_url, str(folder))

        async def all_settled() -> bool:
            query = "select count(*) from billing.gateway_boot where settled_at is not null"
            return bool(await database.fetchval(query) == len(spoken))

        await until(all_settled)
        kill(last)

        rows = await database.fetch("select event_id, outcome, cost_nano_usd from billing.usage_event")
        charged = {row["event_id"].bytes: (row["outcome"], row["cost_nano_usd"]) for row in rows}
        assert len(charged) == len(rows), f"PENSTOCK_SEED={SEED}"
        recovered = 0
        for said in spoken:
            noted: dict[bytes, int] = {}
            for what, event_id, cost in SAID.iter_unpack(said.read_bytes()):
                if what == b"F":
                    noted.pop(event_id, None)
                    assert charged.pop(event_id) == ("done", cost), f"PENSTOCK_SEED={SEED}"
                else:
                    noted[event_id] = cost
            # What was done and could not be said any more: at most one thing, by one stream, in each life.
            later = 0
            for event_id, cost in noted.items():
                outcome, found = charged.pop(event_id)
                later += (outcome, found) != ("recovered", cost)
                assert found in (cost, cost + 1), f"PENSTOCK_SEED={SEED}"
            recovered += len(noted)
            assert later <= 1, f"PENSTOCK_SEED={SEED}"
        # The very first note of a stream may be what was not said.
        assert len(charged) <= len(spoken), f"PENSTOCK_SEED={SEED}"
        assert set(charged.values()) <= {("recovered", 1), ("done", 1)}
        assert recovered > 50
        assert not [remains for remains in boots.look(folder).values() if remains.progress]
        async with database.acquire() as connection:
            assert await invariants.check(connection, COUNTED) == []
