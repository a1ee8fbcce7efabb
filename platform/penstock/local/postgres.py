"""PostgreSQL 18 as our own child, from the programs in a wheel, behind a unix socket in the state folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from penstock.local import accounts, children, problems, sockets, software
from penstock.local.accounts import Account

MAJOR = "18"
PORT = 5432
"""Only part of the socket's file name: nothing listens on TCP."""

READY_WITHIN_S = 60.0
"""Long enough for crash recovery of max_wal_size on a slow disk."""

UNUSED_WITHIN_S = 6.0
"""A server that was told to stop at once gives its sessions 5 s before it kills them."""

HERE = "/proc/self/cwd"
"""The data folder as PostgreSQL knows it. It starts inside, so it needs no right to pass through the folders
above: a state folder under /root serves an unprivileged account, and no permission up there is changed."""

SETTINGS = {
    # The ledger lives here: an acknowledged commit must survive a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_directories": "../socket",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "80",
    # Small: a gateway and a controller on one machine, beside engines that want the memory.
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "huge_pages": "off",
    "io_method": "sync",
    # Parallel workers would need /dev/shm, which containers keep at 64 MB.
    "max_parallel_workers_per_gather": "0",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL and how to reach it."""

    url: str
    child: children.Child

    async def stop(self, *, patience_s: float = 15.0) -> None:
        """Stop it as `fast`: sessions are cut, and the next start needs no recovery."""
        await self.child.stop(with_signal=signal.SIGINT, patience_s=patience_s)


async def start(folder: Path, *, log: Path | None = None) -> Postgres:
    """Start PostgreSQL on `folder` and wait until it answers; the first time, create its database `penstock`.

    `folder` (absolute; its parent must exist) will hold `data` and `socket`. As root, PostgreSQL runs as the
    account of `accounts.unprivileged`. Raises StateError for data of another version or of somebody else,
    ChildError when it does not come up, SoftwareError when its programs are missing.
    """
    account = accounts.unprivileged()
    programs = software.postgres_programs(account)
    if _is_new(folder, account):
        await _initialise(programs, folder, account)
    await _until_unused(folder / "data")
    child = children.start(
        "PostgreSQL",
        [programs / "postgres", "-D", HERE, *_arguments()],
        log=log or folder / "postgres.log",
        environment=children.bare_environment(),
        folder=folder / "data",
        account=account,
        # Immediate shutdown: every session is ended too, and the next start recovers from the log.
        on_our_death=signal.SIGQUIT,
    )
    host = sockets.short_way(folder / "socket", f".s.PGSQL.{PORT}")
    try:
        await children.until_ready(child, lambda: _answers(host), patience_s=READY_WITHIN_S)
    except BaseException:
        child.kill()
        await child.ended()
        raise
    return Postgres(f"postgresql://penstock@/penstock?host={quote(str(host))}&port={PORT}", child)


def _arguments() -> list[str]:
    return [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]


def _is_new(folder: Path, account: Account | None) -> bool:
    """Make the folders, and tell whether there is no data yet; raises StateError for data we cannot run."""
    accounts.own_folder(folder, account)
    accounts.own_folder(folder / "socket", account)
    data = folder / "data"
    if not data.exists():
        return True
    try:
        major = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise problems.StateError(
            f"{data} is not a PostgreSQL data folder: move it away, or set PENSTOCK_HOME to another folder"
        ) from None
    if major != MAJOR:
        raise problems.StateError(
            f"{data} was made by PostgreSQL {major} and this Penstock brings {MAJOR}: move its content over "
            f"with the pg_dump of {major}, or set PENSTOCK_HOME to another folder"
        )
    return False


async def _initialise(programs: Path, folder: Path, account: Account | None) -> None:
    """Create the cluster beside its final name, so that a start that was cut short leaves no half of one."""
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    accounts.own_folder(fresh, account)
    child = children.start(
        "PostgreSQL's initdb",
        [
            *(programs / "initdb", "-D", HERE, "--username=penstock", "--encoding=UTF8"),
            # The built-in provider sorts alike on every machine, whatever locales are installed.
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            # Whoever can enter the socket's folder (mode 0700) is us; nobody else gets as far as a password.
            *("--auth-local=trust", "--auth-host=reject", "--no-instructions"),
        ],
        log=folder / "initdb.log",
        environment=children.bare_environment(),
        folder=fresh,
        account=account,
    )
    if status := await child.ended():
        if "No space left" in child.last_words():
            raise problems.StateError(f"the disk of {folder} is full: free some space, or move PENSTOCK_HOME")
        raise child.death(status)
    fresh.rename(folder / "data")


async def _answers(host: Path) -> bool:
    """Connect for real, and create the database where it is missing."""
    try:
        connection = await asyncpg.connect(
            host=str(host), port=PORT, user="penstock", database="postgres", timeout=5
        )
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
        return False
    try:
        if not await connection.fetchval("select true from pg_database where datname = 'penstock'"):
            await connection.execute("create database penstock")
    finally:
        await connection.close()
    return True


async def _until_unused(data: Path) -> None:
    """Wait for what a killed server left, and clear a process id that somebody else bears by now.

    PostgreSQL refuses to start when the number in `postmaster.pid` is a living process of its account. After
    a reboot or in a container that is often a stranger. Only a process inside the data folder is a server.
    """
    deadline = time.monotonic() + UNUSED_WITHIN_S
    while inside := _processes_in(data):
        if time.monotonic() > deadline:
            raise problems.StateError(
                f"another PostgreSQL works in {data} (process {inside[0]}): stop it, or set "
                "PENSTOCK_HOME to another folder"
            )
        await asyncio.sleep(0.02)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(folder: Path) -> list[int]:
    wanted = folder.stat()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "cwd").stat()
        except OSError:  # ended meanwhile, a kernel thread, or another account's: not ours
            continue
        if os.path.samestat(status, wanted):
            found.append(int(entry.name))
    return found
