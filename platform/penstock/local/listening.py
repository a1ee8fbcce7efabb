"""The listening socket: bound before anything slow starts, so a taken port is known at once."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from pathlib import Path

from penstock.local import problems

BACKLOG = 2048
LAST_RUN_MAY_TAKE_S = 2.0
"""The workers of a `penstock up` that was killed hold the port until the kernel has ended them."""


async def bind(host: str, port: int) -> socket.socket:
    """Listen on host and port (0 picks a free one); raises PortError, naming who holds it where known."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise problems.PortError(f"--host {host} --port {port} is no address to listen on: {error}") from None
    deadline = time.monotonic() + LAST_RUN_MAY_TAKE_S
    while True:
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                continue
            raise problems.PortError(_why(error, host, port)) from None
        listener.setblocking(False)
        return listener


def base_url(listener: socket.socket) -> str:
    """The URL that a client on this machine uses: a listener on every address is reached by loopback."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def holder(port: int) -> str | None:
    """Name the process that listens on a TCP port, as far as this account may see."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").iterdir():
        if not inodes or not process.name.isdigit():
            continue
        try:
            for handle in (process / "fd").iterdir():
                if str(handle.readlink()) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # ended meanwhile, or another account's
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    """Read the socket inodes that listen on the port from the kernel's tables (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            listens = columns[3] == "0A"
            if listens and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    return inodes


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        who = holder(port)
        by = f" by {who}" if who else ""
        return f"port {port} is in use{by}: stop that, or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be used by this account: choose one above 1023 with --port"
    return f"{host} is no address of this machine ({error.strerror}): choose another with --host"
