"""Disks that tear, flip, fill up and fail under the usage journal (rows 4, 5, 6, 7)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from rig.client import End
from rig.processes import Gateway
from rig.room import Room
from rig.server import until

from penstock_billing import frames


async def leave_unshipped(room: Room, requests: int) -> tuple[Gateway, Path]:
    """Serve requests while Postgres is out of reach, and kill the gateway: only its journal knows of them."""
    await room.start_engine()
    gateway = await room.start_gateway()
    room.to_postgres.freeze()
    for _ in range(requests):
        assert (await room.ask(stream=True, max_tokens=3)).end is End.FINISHED
    await gateway.kill()
    room.to_postgres.reset()
    room.to_postgres.thaw()
    [journal] = room.journal.glob("*.journal")
    return gateway, journal


def end_of(journal: Path) -> int:
    return max(frame.end for frame in frames.frames(journal))


def half_a_frame(journal: Path, end: int) -> None:
    write_at(journal, end, frames.frame(bytes(range(1, 200)))[:100])


def garbage(journal: Path, end: int) -> None:
    write_at(journal, end, random.Random(4).randbytes(500))


def half_a_frame_at_the_end_of_the_file(journal: Path, end: int) -> None:
    half_a_frame(journal, end)
    with journal.open("r+b") as file:
        file.truncate(end + 100)


def a_length_beyond_the_end(journal: Path, end: int) -> None:
    write_at(journal, end, (60_000).to_bytes(4, "little") + bytes(4) + b"x" * 10)


def write_at(journal: Path, position: int, data: bytes) -> None:
    with journal.open("r+b") as file:
        file.seek(position)
        file.write(data)


@pytest.mark.parametrize(
    "tail", [half_a_frame, garbage, half_a_frame_at_the_end_of_the_file, a_length_beyond_the_end]
)
async def test_a_torn_tail_costs_nothing_that_was_acknowledged(
    room: Room, tail: Callable[[Path, int], None]
) -> None:
    """Row 4: what stands behind the last whole record is ignored, and the next process has its own file."""
    gateway, journal = await leave_unshipped(room, 6)
    tail(journal, end_of(journal))
    await gateway.start()
    async with room.load() as load:
        await load.more(10)
    assert len(await room.check()) >= 16
    assert list(room.journal.glob("*.quarantined")) == []
    await until_said(gateway, "unfinished write")


async def until_said(gateway: Gateway, words: str) -> None:
    async def said() -> bool:
        return words in gateway.last_words(100_000)

    await until(said, f"the log says {words!r}")


@pytest.mark.parametrize("living", [False, True], ids=["dead", "own"])
async def test_a_flipped_bit_sets_the_file_aside_and_bills_only_what_is_whole_before_it(
    room: Room, living: bool
) -> None:
    """Row 5: in a dead process's file, and in the file that is being written."""
    if living:
        await room.start_engine()
        gateway = await room.start_gateway()
        room.to_postgres.freeze()
        for _ in range(8):
            assert (await room.ask(stream=True, max_tokens=3)).end is End.FINISHED
        [journal] = room.journal.glob("*.journal")
    else:
        gateway, journal = await leave_unshipped(room, 8)
    third = list(frames.frames(journal))[3]
    data = bytearray(third.body)
    data[len(data) // 2] ^= 0x10
    write_at(journal, third.position + frames.FRAME.size, bytes(data))
    behind_the_damage = frozenset(seen.request_id for seen in room.asked[3:])
    if living:
        room.to_postgres.reset()
        room.to_postgres.thaw()
    else:
        await gateway.start()
    await until_said(gateway, "set aside")
    async with room.load() as load:
        await load.more(15)
    events = await room.check(given_up=behind_the_damage)
    billed = {event["request_id"] for event in events}
    assert {seen.request_id for seen in room.asked[:3]} <= billed
    assert not behind_the_damage & billed
    assert len(list(room.journal.glob("*.quarantined"))) == 1


class Disk:
    """A place for the journal that gets full, and has room again."""

    def __init__(self, fill: Callable[[Gateway], None], empty: Callable[[Gateway], None]) -> None:
        self.fill = fill
        self.empty = empty


ROOM_BYTES = 1536 * 1024
"""Of the small file system: one reservation of the journal fits, a second does not."""


@contextlib.asynccontextmanager
async def full_file_system(room: Room) -> AsyncIterator[Disk]:
    """A file system of its own, too small; where nothing may be mounted, the library says that it is."""
    room.journal.mkdir(mode=0o700)
    options = f"size={ROOM_BYTES}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "journal", str(room.journal)]
    if run(mount):
        yield no_space_left()
        return
    try:
        yield Disk(
            lambda _: None,
            lambda _: run(["mount", "-o", "remount,size=64m", str(room.journal)]),
        )
    finally:
        for gateway in room.gateways:
            await gateway.close()
        assert run(["umount", str(room.journal)]) == 0


@contextlib.asynccontextmanager
async def quota(room: Room) -> AsyncIterator[Disk]:
    """A limit on how large a file of the process may be, in effect at once."""
    yield Disk(lambda gateway: gateway.limit_files(ROOM_BYTES), lambda gateway: gateway.limit_files(None))


@contextlib.asynccontextmanager
async def nothing_at_all(room: Room) -> AsyncIterator[Disk]:
    """Not even what was reserved can be written any more."""
    yield no_space_left()


def no_space_left() -> Disk:
    return Disk(lambda gateway: answer(gateway, errno.ENOSPC), lambda gateway: answer(gateway, 0))


def answer(gateway: Gateway, number: int) -> None:
    assert gateway.control is not None
    gateway.control.fields.room_errno = number


def run(command: list[str]) -> int:
    return subprocess.run(command, check=False).returncode


def short(chance: random.Random) -> dict[str, Any]:
    """A request that takes no time, with a long name: journals fill up quickly."""
    return {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


@pytest.mark.parametrize("kind", [full_file_system, quota, nothing_at_all])
async def test_with_no_room_left_no_request_is_taken_and_none_is_lost(
    room: Room, kind: Callable[[Room], contextlib.AbstractAsyncContextManager[Disk]]
) -> None:
    """Row 6: admission stops before the room does, says so, and begins again by itself."""
    async with kind(room) as disk:
        await room.start_engine(tokens_per_second=0)
        gateway = await room.start_gateway(shimmed=True, log_level="warning")
        async with room.load(clients=8, make=short, name_length=128) as load:
            await load.more(100)
            disk.fill(gateway)
            gateway.harmed = kind is nothing_at_all

            async def full() -> bool:
                return "no room" in (await gateway.state()).get("journal", "")

            await until(full, "the gateway knows that there is no room", within_s=120)
            refused = await room.ask()
            assert (refused.status, refused.error and refused.error["code"]) == (503, "metering_unavailable")
            disk.empty(gateway)
            await until(gateway.ready, "the gateway takes requests again")
            await load.more(50)
        assert {seen.status for seen in load.seen} <= {200, 503}
        await room.check()


async def test_a_disk_that_fails_to_sync_ends_the_process_and_nothing_acknowledged_is_lost(
    room: Room,
) -> None:
    """Row 7: after EIO nobody knows what the disk holds, so the process stops taking requests and ends."""
    await room.start_engine()
    failing, other = await asyncio.gather(room.start_gateway(shimmed=True), room.start_gateway())
    async with room.load() as load:
        await load.more(20)
        assert failing.control is not None
        failing.harmed = True
        failing.control.fields.sync_errno = errno.EIO
        await failing.ended()
        failing.control.fields.sync_errno = 0
        await failing.start()
        await load.more(20)
    assert other.running
    await room.check()
    assert "could not be forced to the disk" in failing.last_words(100_000)
