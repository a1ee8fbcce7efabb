"""The warm parent of CPU engines: imports vLLM once, then forks a whole server for whoever asks.

`python -m penstock_engines.zygote --socket PATH --parent PID`. One connection is one engine. The client sends
one line, `{"argv": [...], "environment": {...}, "log": "path"}`, and reads `{"pid": n}` when the engine's
process exists and `{"exit": status}` when it ended. `{"do": "terminate"}` and `{"do": "kill"}` may be sent.
When the connection closes, the engine's whole process group is killed: nobody is left who keeps it.

Only the main thread runs here, so that a fork copies no lock that someone holds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_engines import lifeline, serve, shared_memory

REQUEST_BYTES_MAX = 2**20


@dataclass
class Engine:
    """One connection and, once it asked for one, its engine."""

    connection: socket.socket
    received: bytes = b""
    pid: int | None = None
    """None before the fork, and again after the engine ended."""
    dropped: bool = False
    """The connection was closed and the engine killed; only its end is still to come."""

    def tell(self, line: dict[str, Any]) -> None:
        """Send one line; a client that is gone is noticed where its connection is read."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(line).encode() + b"\n")

    def signal_group(self, number: int) -> None:
        """Signal every process of the engine, or its first where it has not made its group yet."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                os.kill(self.pid, number)


class Zygote:
    """The loop: accepts, forks, reaps."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._engines: dict[int, Engine] = {}
        """By the connection's file descriptor."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        for one in (self._wake_read, self._wake_write):
            one.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        # A handler must exist for the wake-up to be written.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_read.recv(4096)
                    self._reap()
                elif engine := self._engines.get(key.fd):
                    self._read(engine)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._engines[connection.fileno()] = Engine(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, engine: Engine) -> None:
        try:
            received = engine.connection.recv(65536)
        except OSError:
            received = b""
        if not received or len(engine.received) > REQUEST_BYTES_MAX:
            self._drop(engine)
            return
        *lines, engine.received = (engine.received + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "argv" in request:
                self._fork(engine, request)
            elif request.get("do") == "terminate" and engine.pid is not None:
                os.kill(engine.pid, signal.SIGTERM)
            elif request.get("do") == "kill":
                engine.signal_group(signal.SIGKILL)

    def _fork(self, engine: Engine, request: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_engine(request)
        engine.pid = pid
        engine.tell({"pid": pid})

    def _become_engine(self, request: dict[str, Any]) -> None:
        status = 1
        try:
            os.setsid()
            shared_memory.name_after(os.getpid())
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._close_inherited()
            log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            os.environ.update(request["environment"])
            sys.argv = ["vllm", *request["argv"]]
            serve.run(request["argv"])
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever it was, this copy of the zygote must end here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _close_inherited(self) -> None:
        self._selector.close()
        for one in (self._listener, self._wake_read, self._wake_write):
            one.close()
        for engine in self._engines.values():
            engine.connection.close()

    def _drop(self, engine: Engine) -> None:
        engine.dropped = True
        self._selector.unregister(engine.connection)
        engine.signal_group(signal.SIGKILL)
        if engine.pid is None:
            self._forget(engine)

    def _forget(self, engine: Engine) -> None:
        del self._engines[engine.connection.fileno()]
        engine.connection.close()

    def _reap(self) -> None:
        while True:
            try:
                # Look before reaping: while the dead leader keeps its number, its group is the one we mean.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            engine = next((one for one in self._engines.values() if one.pid == ended.si_pid), None)
            if engine is not None:
                engine.signal_group(signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            if engine is not None:
                shared_memory.remove_left(ended.si_pid)
                engine.pid = None
                engine.tell({"exit": os.waitstatus_to_exitcode(status)})
                if engine.dropped:
                    self._forget(engine)


def main() -> None:
    """Import, then serve; the socket is there from the start, so that clients can queue while it imports."""
    parser = argparse.ArgumentParser(prog="penstock_engines.zygote")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    lifeline.die_with(arguments.parent)
    lifeline.children_die_with_us()
    lifeline.adopt_orphans()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under its own name only once it listens: a client that sees it can connect.
    unready = arguments.socket.with_suffix(".new")
    unready.unlink(missing_ok=True)
    listener.bind(str(unready))
    listener.listen(64)
    unready.rename(arguments.socket)
    began_s = time.monotonic()
    shared_memory.remove_orphans()
    serve.warm()
    gc.collect()
    # What is here now is here for good: collecting it in every child would copy all its pages.
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    print(f"ready to fork after {time.monotonic() - began_s:.1f} s, {threads} thread(s)", flush=True)  # noqa: T201
    Zygote(listener).run()


if __name__ == "__main__":
    main()
