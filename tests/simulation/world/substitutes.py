"""What the tested modules get in place of `os`, `fcntl`, `time`, `random` and the database, for a while.

The code that is simulated is the code that runs: nothing in it knows of the simulation. Its modules' names
for the outside world are bound to these, and bound back afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from world import disk
from world.loop import CURRENT, VirtualLoop

EPOCH = datetime(2026, 3, 2, 11, 40, tzinfo=UTC)
"""When runs begin, unless they say otherwise: an hour ends soon."""


class Run:
    """What the substitutes speak to: the loop, the disks and the randomness of the run that is going on."""

    loop: VirtualLoop
    rng: random.Random
    database: Any
    prices: Any
    world: Any
    begun: datetime = EPOCH


RUN = Run()


def wall_s() -> float:
    """Unix seconds by the clock of whoever asks: a host's may be wrong."""
    process = CURRENT.get()
    offset_s = process.host.clock_offset_s if process is not None and process.host is not None else 0.0
    return RUN.begun.timestamp() + RUN.loop.time() + offset_s


class Time:
    """`time`, for the tested modules."""

    @staticmethod
    def monotonic() -> float:
        return RUN.loop.time()

    @staticmethod
    def perf_counter_ns() -> int:
        return int(RUN.loop.time() * 1e9) + 1

    monotonic_ns = perf_counter_ns

    @staticmethod
    def time() -> float:
        return wall_s()

    @staticmethod
    def time_ns() -> int:
        return int(wall_s() * 1e9)


class Datetime(datetime):
    """`datetime.datetime`, for the tested modules."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(wall_s(), tz)


class PosixPath:
    """`os.path`."""

    @staticmethod
    def samestat(one: disk.Stat, other: disk.Stat) -> bool:
        return one.st_ino == other.st_ino


class Os:
    """`os`: constants are the real ones, calls go to the simulated disks, others are errors."""

    path = PosixPath

    def __getattr__(self, name: str) -> Any:
        if name.isupper():
            return getattr(os, name)
        raise AttributeError(f"the simulation does not know os.{name} yet: add it to substitutes.Os")

    @staticmethod
    def strerror(number: int) -> str:
        return os.strerror(number)

    @staticmethod
    def open(path: Any, flags: int, mode: int = 0o777) -> int:
        return disk.DISKS[-1].open(str(path), flags)

    @staticmethod
    def close(file: int) -> None:
        disk.DISKS[-1].close(file)

    @staticmethod
    def pwrite(file: int, data: bytes, offset: int) -> int:
        return disk.DISKS[-1].pwrite(file, data, offset)

    @staticmethod
    def pread(file: int, size: int, offset: int) -> bytes:
        return disk.DISKS[-1].pread(file, size, offset)

    @staticmethod
    def posix_fallocate(file: int, offset: int, size: int) -> None:
        disk.DISKS[-1].allocate(file, offset, size)

    @staticmethod
    def fdatasync(file: int) -> None:
        disk.DISKS[-1].force(file)

    fsync = fdatasync

    @staticmethod
    def ftruncate(file: int, size: int) -> None:
        disk.DISKS[-1].truncate(file, size)

    @staticmethod
    def fstat(file: int) -> disk.Stat:
        return disk.Stat(disk.DISKS[-1].inode(file))

    @staticmethod
    def urandom(size: int) -> bytes:
        return RUN.rng.randbytes(size)


class Fcntl:
    """`fcntl`."""

    LOCK_EX, LOCK_NB, LOCK_UN, LOCK_SH = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN, fcntl.LOCK_SH

    @staticmethod
    def flock(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_UN:
            disk.DISKS[-1].unlock(file)
        else:
            disk.DISKS[-1].lock(file)


class Random:
    """`random`."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return RUN.rng.uniform(low, high)

    @staticmethod
    def random() -> float:
        return RUN.rng.random()


class Database:
    """`penstock_base.database`."""

    @staticmethod
    async def connect(url: str, name: str, **options: Any) -> Any:
        return await RUN.database.connect(name, options.get("command_timeout"))


OS, FCNTL, TIME, RANDOM, DATABASE = Os(), Fcntl(), Time(), Random(), Database()
SUBSTITUTES = {
    "os": OS,
    "fcntl": FCNTL,
    "time": TIME,
    "random": RANDOM,
    "datetime": Datetime,
    "database": DATABASE,
}


def tested_modules() -> list[Any]:
    """Every module that runs in the simulation and reaches outside."""
    from penstock.admission.credit import charge, lending, purse
    from penstock.serving import attempt, conduct, last_events, meter, notes, relay
    from penstock_base import ids
    from penstock_billing import adoption, boots, journal, ledger, prices, progress, shipper

    billing = [ids, journal, progress, boots, adoption, shipper, prices, ledger]
    return [*billing, charge, lending, purse, attempt, conduct, last_events, meter, notes, relay]


@contextlib.contextmanager
def substituted() -> Iterator[None]:
    """Bind the tested modules to the simulation."""
    kept = [
        (module, name, module.__dict__[name])
        for module in tested_modules()
        for name in SUBSTITUTES
        if name in module.__dict__
    ]
    for module, name, _ in kept:
        setattr(module, name, SUBSTITUTES[name])
    # A run makes much and drops it all: the collector would look at it again and again.
    gc.disable()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        gc.enable()
        for module, name, real in kept:
            setattr(module, name, real)


def database_now() -> datetime:
    """The database's own clock, which is right."""
    return RUN.begun + timedelta(seconds=RUN.loop.time())
