"""The process of a simulated engine."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from penstock_engines import lifeline
from penstock_engines.receipt_log import ReceiptLog
from penstock_engines.simulated import wire
from penstock_engines.simulated.engine import Engine, Settings
from penstock_engines.simulated.protocol import Connection


def main() -> None:
    """Serve until SIGTERM, which lets running answers finish, or a second one."""
    parser = argparse.ArgumentParser(prog="penstock_engines.simulated")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", type=Path, help="a unix socket")
    where.add_argument("--port", type=int, help="a port of the loopback")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="per choice; 0: at once")
    parser.add_argument("--first-token-ms", type=float, default=0.0)
    parser.add_argument(
        "--answer-tokens", type=int, default=16, help="length of an answer that may be longer"
    )
    parser.add_argument("--context-length", type=int, default=1_048_576)
    parser.add_argument("--prefix-cache", type=int, default=0, choices=[0, 1], help="1: knows prompts again")
    parser.add_argument("--adapters", type=Path, help="where adapters of the model lie")
    parser.add_argument("--parent", type=int, help="die with this process, the one that started us")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        lifeline.die_with(arguments.parent)
    settings = Settings(
        model=arguments.model,
        tokens_per_second=arguments.tokens_per_second,
        first_token_ms=arguments.first_token_ms,
        answer_tokens=arguments.answer_tokens,
        context_length=arguments.context_length,
        adapters=arguments.adapters,
        prefix_cache=bool(arguments.prefix_cache),
    )
    if arguments.uds is not None:
        arguments.uds.unlink(missing_ok=True)
    log = ReceiptLog(arguments.uds) if arguments.uds is not None else None
    uvloop.run(serve(Engine(settings, log=log), arguments.uds, arguments.port))


async def serve(engine: Engine, socket: Path | None, port: int | None) -> None:
    """Listen at one place."""
    loop = asyncio.get_running_loop()
    head = wire.Head()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if socket is not None:
        server = await loop.create_unix_server(lambda: Connection(engine, head), str(socket), backlog=4096)
    else:
        server = await loop.create_server(lambda: Connection(engine, head), "127.0.0.1", port, backlog=4096)
    await stop.wait()
    server.close()
    # Fifty looks a second cost less than an event per request would.
    while engine.running and not engine.hung:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    engine.close()


if __name__ == "__main__":
    main()
