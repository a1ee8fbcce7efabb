"""`penstock up`: everything on one machine, as children of this one process, each after what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import asyncpg
import httpx

from penstock import settings
from penstock.local import (
    children,
    first_run,
    listening,
    postgres,
    problems,
    sockets,
    state,
    steps,
    valkey,
    welcome,
)
from penstock.local.keeping import Kept
from penstock_base import tasks as ending

T = TypeVar("T")

PROBE_EVERY_S = 0.1
CONTROLLER_PATIENCE_S = 40.0
"""The controller lets engines finish, then ends them."""
DRAIN_MARGIN_S = 5.0
RESTART = re.compile(r"; restart (\d+) in ")
"""How an engine's state tells that it ended and will be tried again."""
RESTARTS_MAX = 4
"""An engine that ends this often before it ever answered will not start by itself."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    host: str
    port: int
    workers: int
    as_json: bool
    ready_within_s: float
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))


async def run(options: Options, show: steps.Steps, say: Callable[[str], None]) -> bool:
    """Start everything, `say` the welcome (or the JSON line), keep it alive, and stop it when asked to.

    Returns whether it ever was ready: a signal may come before. Raises LocalError, SettingsError or
    MigrationError when it cannot start; everything is stopped by then.
    """
    asked = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        up = _Up(options, show, say, stack)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, up.on_signal, asked)
            stack.callback(loop.remove_signal_handler, number)
        starting = asyncio.create_task(up.start())
        asking = asyncio.create_task(asked.wait())
        try:
            await asyncio.wait({starting, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.is_set():
                await starting  # raises what went wrong
                await asyncio.wait({asking, *up.keepers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await up.settle(starting, asking)
    return up.ready


class _Up:
    """The parts as they come up; the exit stack takes them down in the opposite order."""

    def __init__(
        self,
        options: Options,
        show: steps.Steps,
        say: Callable[[str], None],
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._options = options
        self._show = show
        self._say = say
        self._stack = stack
        self._environ = dict(options.environ)
        self._kept: list[Kept] = []
        self._drained: list[Kept] = []
        self.keepers: list[asyncio.Task[None]] = []
        self.ready = False

    def on_signal(self, asked: asyncio.Event) -> None:
        """Stop at the first signal; a second one does not wait for running requests."""
        if asked.is_set():
            for kept in self._drained:
                kept.kill()
            return
        asked.set()
        self._show.note("stopping: running requests may finish; once more to cut them short")

    async def start(self) -> None:
        """Bring everything up, in order, and print the welcome."""
        home = settings.default_home(self._environ)
        with self._show.step(f"state folder {home}"):
            held = state.take(home)
            self._stack.callback(held.close)
        with self._show.step(f"port {self._options.port}"):
            listener = await listening.bind(self._options.host, self._options.port)
            self._stack.callback(listener.close)
        self._environ["PENSTOCK_HOME"] = str(home)
        # What gateways tell of their own address; whoever has a name in front says so.
        self._environ.setdefault("PENSTOCK_PUBLIC_URL", listening.base_url(listener))
        await self._start_servers(held)
        told = settings.read(self._environ)
        with self._show.step("schemas"):
            await _explained(told.database_url, first_run.migrate(told.database_url))
            key = await self._key(told)
            account = await first_run.first_account(told.database_url)
        asleep = f" ({', '.join(told.models_asleep)} when asked for)" if told.models_asleep else ""
        with self._show.step(f"gateway and engines for {', '.join(told.models) or 'no model'}{asleep}"):
            await self._start_service(held, listener, told)
            # While the engines load there is time to look at the cards, and to say what is wrong with them.
            model = await asyncio.to_thread(_chat_model, told)
            await self._until_ready(listening.base_url(listener), told.models)
        url = listening.base_url(listener)
        held.announce(state.Run(os.getpid(), f"{url}/v1", told.database_url, told.redis_url, told.public_url))
        self.ready = True
        portal = f"{told.public_url}/portal"
        self._welcome(welcome.Ready(f"{url}/v1", key, model, self._show.total_s(), portal, account))

    async def _start_servers(self, held: state.State) -> None:
        """PostgreSQL and Valkey, unless the environment names servers of its own."""
        if not self._environ.get("PENSTOCK_DATABASE_URL"):
            with self._show.step("PostgreSQL"):

                async def start_postgres() -> children.Child:
                    running = await postgres.start(held.home / "postgres", log=held.logs / "postgres.log")
                    self._environ["PENSTOCK_DATABASE_URL"] = running.url
                    return running.child

                await self._keep(
                    Kept(start_postgres, self._show.note, with_signal=signal.SIGINT, patience_s=15)
                )
        if not self._environ.get("PENSTOCK_REDIS_URL"):
            with self._show.step("Valkey"):

                async def start_valkey() -> children.Child:
                    running = await valkey.start(held.home / "valkey", log=held.logs / "valkey.log")
                    self._environ["PENSTOCK_REDIS_URL"] = running.url
                    return running.child

                await self._keep(Kept(start_valkey, self._show.note, patience_s=5))

    async def _key(self, told: settings.Settings) -> str | None:
        key = await first_run.first_key(told.database_url, told.pepper)
        if key is None and self._options.as_json:
            key = await first_run.script_key(told.database_url, told.pepper)
        return key

    async def _start_service(
        self, held: state.State, listener: socket.socket, told: settings.Settings
    ) -> None:
        """The controller with its engines, and the gateway's workers on one listening socket."""

        async def start_controller() -> children.Child:
            return self._python("controller", held, ["controller"], self._environ)

        def forget(child: children.Child) -> None:
            held.forget_process(child.pid)

        # Started before the gateway, so stopped after it: no engine ends under a running request.
        controller = Kept(
            start_controller, self._show.note, patience_s=CONTROLLER_PATIENCE_S, after_end=forget
        )
        self._drained.append(controller)
        await self._keep(controller)
        environment = children.own_environment(self._environ, {})
        handle = listener.fileno()
        gateways = []
        for number in range(1, self._options.workers + 1):

            async def start_gateway(name: str = f"gateway-{number}") -> children.Child:
                return self._python(name, held, ["gateway", "--fd", str(handle)], environment, handle)

            patience_s = told.drain_s + DRAIN_MARGIN_S
            gateways.append(Kept(start_gateway, self._show.note, patience_s=patience_s, after_end=forget))
        self._drained += gateways
        await self._keep(*gateways)
        # Nobody may knock at a door behind which all workers are leaving.
        self._stack.callback(listener.close)

    def _python(
        self, name: str, held: state.State, command: list[str], environment: dict[str, str], *handles: int
    ) -> children.Child:
        return children.start(
            name,
            # -P: the state folder it works in is no place to import from.
            [sys.executable, "-P", "-m", "penstock.cli", *command],
            log=held.logs / f"{name}.log",
            environment=environment,
            folder=held.home,
            pass_fds=handles,
        )

    async def _keep(self, *together: Kept) -> None:
        """Start these and watch them; they will be stopped at the same time."""

        async def stop() -> None:
            await asyncio.gather(*(kept.stop() for kept in together))

        self._stack.push_async_callback(stop)
        for kept in together:
            await kept.start()
            self._kept.append(kept)
            self.keepers.append(asyncio.create_task(kept.keep()))

    async def _until_ready(self, url: str, models: Sequence[str]) -> None:
        """Wait until every wanted model is served; a child that ends meanwhile is why it never comes."""
        ready = asyncio.create_task(self._poll(_readiness(url, models)))
        try:
            await asyncio.wait(
                {ready, *self.keepers},
                timeout=self._options.ready_within_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in (ready, *self.keepers):
                if task.done():
                    task.result()
            if not ready.done():
                raise problems.ChildError(
                    f"not ready after {self._options.ready_within_s:.0f} s: look at the logs in "
                    f"{settings.default_home(self._environ) / 'logs'}, or give it longer with --ready-within"
                )
        finally:
            ready.cancel()
        for kept in self._kept:
            kept.tolerant = True

    async def _poll(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(url)
                except httpx.HTTPError:
                    pass
                else:
                    if answer.status_code == 200:
                        return
                    self._show.waits_for(_missing(answer))
                await asyncio.sleep(PROBE_EVERY_S)

    def _welcome(self, ready: welcome.Ready) -> None:
        self._say(welcome.as_json(ready, os.getpid()) if self._options.as_json else welcome.text(ready))

    async def settle(self, *tasks: asyncio.Task[object]) -> None:
        """End what waits, so that nothing is started again while the exit stack stops it."""
        await ending.end(*tasks, *self.keepers)


def _readiness(url: str, models: Sequence[str]) -> str:
    """What to ask: a gateway without any model is never ready, but it can be well."""
    return f"{url}/readyz?{urlencode([('model', model) for model in models])}" if models else f"{url}/healthz"


def _missing(answer: httpx.Response) -> list[str]:
    """What a gateway that is not ready waits for; raises ChildError for an engine that will not get there."""
    try:
        states: dict[str, str] = answer.json()["models"]
    except (ValueError, KeyError):
        return [f"the gateway answers {answer.status_code}"]
    for model, told in states.items():
        if told.startswith("gone ("):
            raise problems.ChildError(
                f"no engine can serve {model}: {told.partition('(')[2].removesuffix(')')}"
            )
        restart = RESTART.search(told)
        if restart and int(restart[1]) >= RESTARTS_MAX:
            why = told[: restart.start()].partition("(")[2]
            raise problems.ChildError(
                f"the engine of {model} ends each time it starts: {why}; its log is in the folder `logs` "
                "of the state folder, and `penstock doctor` may know the cure"
            )
    return [f"{model}: {told}" for model, told in states.items()]


def _chat_model(told: settings.Settings) -> str:
    """Choose the model for the welcome's snippets; raises CardError for any bad card.

    Raises LocalError for a wanted model that has no card, or whose engine would have too long a socket path.
    """
    # Here, because it takes half a second that the start can do without.
    from penstock_catalog.shelf import BUILTIN, Shelf  # noqa: PLC0415
    from penstock_engines.registry import engine_name  # noqa: PLC0415

    shelf = Shelf.open([BUILTIN, *told.cards])
    named = (*told.models, *told.models_asleep)
    cards = [shelf.get(model) for model in named]
    if unknown := [model for model, card in zip(named, cards, strict=True) if card is None]:
        raise problems.LocalError(
            f"PENSTOCK_MODELS or PENSTOCK_MODELS_ASLEEP names {unknown[0]}, which has no card: "
            "`penstock models list` shows those that have"
        )
    for card in cards:
        if card:
            sockets.check(told.engines_folder / engine_name(card.id, "1234") / "engine.sock", told.home)
    return next((card.id for card in cards if card and card.task == "chat"), "MODEL")


def without_password(url: str) -> str:
    """A database's address as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


async def _explained(url: str, work: Awaitable[T]) -> T:
    """Do database work; what fails is said with the database's address and without its password."""
    try:
        return await work
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise problems.LocalError(
            f"the database {without_password(url)} cannot be used ({error}): check PENSTOCK_DATABASE_URL"
        ) from error
