"""Valkey (speaks Redis) as our own child, from the program in a wheel, behind a unix socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from penstock.local import accounts, children, sockets, software
from penstock.local.accounts import Account

SOCKET = "valkey.sock"
READY_WITHIN_S = 15.0

SETTINGS = {
    "port": "0",
    "unixsocket": SOCKET,
    "unixsocketperm": "700",
    # Redis holds only what may be lost: nothing is written to disk, and old entries go when memory is full.
    "save": "",
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "daemonize": "no",
}


@dataclass(frozen=True)
class Valkey:
    """A running Valkey and how to reach it."""

    url: str
    child: children.Child

    async def stop(self, *, patience_s: float = 5.0) -> None:
        """Stop it; it has nothing to save."""
        await self.child.stop(patience_s=patience_s)


async def start(folder: Path, *, log: Path | None = None) -> Valkey:
    """Start Valkey with its socket in `folder` (its parent must exist) and wait until it answers.

    Raises ChildError when it does not come up, SoftwareError when its program is missing.
    """
    account, program = _prepare(folder)
    child = children.start(
        "Valkey",
        [program, *(part for name, value in SETTINGS.items() for part in (f"--{name}", value))],
        log=log or folder / "valkey.log",
        environment=children.bare_environment(),
        folder=folder,
        account=account,
    )
    path = sockets.short_way(folder, SOCKET) / SOCKET
    try:
        await children.until_ready(child, lambda: _answers(path), patience_s=READY_WITHIN_S)
    except BaseException:
        child.kill()
        await child.ended()
        raise
    return Valkey(f"unix://{path}", child)


def _prepare(folder: Path) -> tuple[Account | None, Path]:
    account = accounts.unprivileged()
    program = software.valkey_server(account)
    accounts.own_folder(folder, account)
    (folder / SOCKET).unlink(missing_ok=True)
    return account, program


async def _answers(path: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
