"""`penstock gateway`: one gateway process."""

from __future__ import annotations

import resource
import socket
import sys

import click

from penstock import settings
from penstock.observe import logs, sharing

FILES_MAX = 1_048_576
"""More open files than any gateway will have connections."""


@click.command()
@click.option("--fd", type=click.IntRange(0), help="An inherited listening socket, instead of host and port.")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="PENSTOCK_HOST")
@click.option(
    "--port", default=8088, show_default=True, envvar="PENSTOCK_PORT", type=click.IntRange(0, 65535)
)
def command(fd: int | None, host: str, port: int) -> None:
    """Serve the APIs until SIGTERM, then let running requests finish."""
    try:
        told = settings.read()
    except settings.SettingsError as error:
        click.echo(f"penstock gateway: {error}", err=True)
        sys.exit(1)
    logs.configure("gateway", told.log_level)
    sharing.share(told.metrics_folder)
    _take_files()
    listener = socket.socket(fileno=fd) if fd is not None else _bind(host, port)
    import uvloop  # noqa: PLC0415

    from penstock_catalog.errors import CardError  # noqa: PLC0415

    try:
        uvloop.run(_serve(told, listener))
    except CardError as error:
        click.echo(f"penstock gateway: {error}", err=True)
        sys.exit(1)


def _take_files() -> None:
    """Every connection is an open file: have as many as the account may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(told: settings.Settings, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415

    from penstock.app import open_gateway  # noqa: PLC0415

    gateway = await open_gateway(told)
    config = uvicorn.Config(
        gateway.application(),
        http="httptools",
        ws="none",
        loop="none",
        access_log=False,
        log_config=None,
        server_header=False,
        # Who calls is in the credential; a header that any client can set decides nothing.
        proxy_headers=False,
        timeout_graceful_shutdown=int(told.drain_s),
        timeout_keep_alive=75,
    )
    if sys.platform == "linux" and listener.family != socket.AF_UNIX:
        # Who reads nothing for so long counts as gone (serving.relay); the kernel then frees the connection
        # too, which closing alone would keep until the last byte in its buffers is read.
        stall_ms = int(told.stall_timeout_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
    server = uvicorn.Server(config)
    await server.serve(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        click.echo(
            f"penstock gateway: cannot listen at {host}:{port} ({error.strerror}): try --port", err=True
        )
        sys.exit(1)
    listener.listen(1024)
    return listener
