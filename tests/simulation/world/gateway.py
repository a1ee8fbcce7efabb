"""A gateway process: the real journal, shipper, meter, conductor and relays, wired as in the application."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
from world.client import Asked, Client, End
from world.loop import Process
from world.substitutes import TIME

from penstock.access.keyring import Principal
from penstock.admission.credit.errors import CreditError
from penstock.admission.credit.lending import Lender
from penstock.admission.credit.wallets import Wallets
from penstock.admission.funds import Ask as MayAsk
from penstock.admission.funds import Funds
from penstock.admission.shared_counters import SharedCounters
from penstock.routing.directory import Directory
from penstock.serving.attempt import EngineFailed, EngineRefused, MeteringFailed
from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.conduct import Conductor
from penstock.serving.dispatch import Dispatcher
from penstock.serving.load import FirstTokens
from penstock.serving.meter import Meter, Settlement
from penstock.serving.relay import Patience
from penstock.serving.tickets import ClientGone, NotServed, QueueFull
from penstock_base import ids
from penstock_billing.journal import Journal
from penstock_billing.progress import Progress
from penstock_billing.record import UsageRecord
from penstock_billing.shipper import DATABASE_AWAY, Shipper
from penstock_engines.registry import Registered

if TYPE_CHECKING:
    from world.simulation import Host, Simulation

REFUSALS = (QueueFull, NotServed, EngineRefused, EngineFailed, MeteringFailed)
"""What the edge puts into words."""
FOLLOW_EVERY_S = 1.0
NO_REDIS = "redis://127.0.0.1:1"
"""Never connected to: nobody runs the counters' loop."""
PROMPT_SLACK_TOKENS = 50
"""How much longer a prompt may be than it is, as far as the edge can tell."""


class WatchedMeter(Meter):
    """The meter, with somebody who remembers what it noted."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.journal, gateway.progress)
        self._gateway = gateway

    def note(self, call: Call, so_far: Settlement) -> None:
        super().note(call, so_far)
        if self._gateway.progress.failure is None:
            self._gateway.world.noted[call.request_id] = so_far.usage.output_tokens


class Gateway:
    """One life of one gateway."""

    def __init__(self, world: Simulation, host: Host, name: str) -> None:
        self.world = world
        self.process = Process(name, host)
        self.process.at_death.append(self._gone)
        self.stopping = asyncio.Event()
        self.ready = False
        self.requests: dict[asyncio.Task[None], Client] = {}
        self.journal: Journal
        self.shipper: Shipper
        self.failed_to_start = False
        world.loop.spawn(self.process, self._live())

    def _gone(self) -> None:
        """The kernel cleans up behind it."""
        self.ready = False
        self.world.disks.close_all_of(self.process)
        for client in self.requests.values():
            client.broken()

    async def _live(self) -> None:
        world, options = self.world, self.world.plan.options
        try:
            self.journal = Journal(
                self.process.host.folder, part_bytes=options.part_bytes, reserve_bytes=options.reserve_bytes
            )
            self.progress = Progress(self.process.host.folder, self.journal.boot_id)
        except Exception:
            # A full or failing disk: the parent tries again.
            self.process.kill()
            return
        self.shipper = Shipper(
            "simulated", self.process.host.folder, self.journal, keep=timedelta(seconds=options.keep_s)
        )
        self.directory = Directory()
        self.directory.update(
            [
                Registered(engine.name, "sim/chat", "ready", engine.socket, 8, None)  # type: ignore[arg-type]
                for engine in world.engines
            ]
        )
        dispatcher = Dispatcher(
            self.directory,
            SharedCounters(NO_REDIS),
            wanted=lambda model: None,
            clock=world.loop.time,
            dice=world.rng,
        )
        self.conductor = Conductor(
            dispatcher,
            WatchedMeter(self),
            Patience(options.first_byte_s, options.stall_s),
            FirstTokens(world.loop.time),
        )
        pool: Any = world.database.pool("gateway", 10.0)
        self.wallets = Wallets()
        self.lender = Lender(pool, self.journal.boot_id, self.wallets)
        self.funds = Funds(self.wallets, self.lender)
        loops = [self.journal.run(), self.shipper.run(), self.lender.run(), self._follow(pool)]
        tasks = [asyncio.create_task(self._guarded(loop)) for loop in loops]
        self.ready = True
        await self.stopping.wait()
        self.ready = False
        await self._drain(options.grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            self.journal.close()
        except Exception:
            world.say(f"{self.process} could not close its journal")
        self.progress.close()
        await self.shipper.drain(5.0)
        await self.lender.drain(3.0)
        await self.shipper.close()
        self.directory.close()
        await pool.close()
        world.note_shipper(self)
        self.process.kill()

    async def _drain(self, grace_s: float) -> None:
        """What the server does when told to stop: let requests end, for a while."""
        if self.requests:
            await asyncio.wait(list(self.requests), timeout=grace_s)
        for task in list(self.requests):
            task.cancel()
        if self.requests:
            await asyncio.wait(list(self.requests))

    async def _guarded(self, loop: Coroutine[Any, Any, None]) -> None:
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.world.say(f"{self.process}: a loop ended, so it stops: {error!r}")
            self.stopping.set()

    async def _follow(self, pool: Any) -> None:
        while True:
            try:
                await self.wallets.refresh(pool)
            except DATABASE_AWAY:
                pass
            await asyncio.sleep(FOLLOW_EVERY_S)

    def take(self, client: Client) -> None:
        """A client's request arrives."""
        task = self.world.loop.spawn(self.process, self._answer(client))
        self.requests[task] = client
        task.add_done_callback(lambda done: self.requests.pop(done, None))

    async def _answer(self, client: Client) -> None:
        asked = client.asked
        event_id = ids.uuid7_bytes()
        request_id = client.request_id = f"req_{event_id.hex()}"
        self.world.begin(client, self)
        try:
            if not self.journal.healthy:
                client.settle(End.REFUSED, "the journal is not healthy")
                return
            call = await self._call(asked, event_id, request_id)
            await self.conductor.run(call, client.receive, client.send, [])
        except CreditError as refusal:
            client.settle(End.REFUSED, type(refusal).__name__)
        except REFUSALS as refusal:
            client.settle(End.FAILED, type(refusal).__name__)
        except ClientGone:
            client.settle(End.LEFT)
        except asyncio.CancelledError:
            client.settle(End.BROKEN, "the gateway stopped")
            raise
        except Exception as error:
            client.settle(End.FAILED, repr(error))
            self.world.problem(f"{request_id}: unforeseen {error!r}")
        else:
            if client.end is End.OPEN:
                self.world.problem(f"{request_id} was answered without an end")

    async def _call(self, asked: Asked, event_id: bytes, request_id: str) -> Call:
        """Let a request in, as the edge does."""
        ask = asked.ask
        principal = Principal(asked.organisation_id, 1, f"key_{asked.organisation_id}")
        price = self.world.prices.current(asked.model, asked.organisation_id)
        assert price is not None
        output_tokens_max = ask.max_tokens or ask.output_tokens
        charge = await self.funds.admit(
            MayAsk(
                principal=principal,
                price=price,
                input_tokens_max=ask.prompt_tokens + PROMPT_SLACK_TOKENS,
                output_tokens_max=output_tokens_max,
                choices=ask.n,
                streamed=ask.stream,
            )
        )
        if charge.output_tokens_max < output_tokens_max:
            ask = msgspec.structs.replace(ask, max_tokens=charge.output_tokens_max)
        self.world.admitted[request_id] = price.id
        return Call(
            event_id=event_id,
            request_id=request_id,
            client_request_id=None,
            surface=Surface.CHAT,
            principal=principal,
            card=SimpleNamespace(id=asked.model),  # type: ignore[arg-type]
            price=price,
            body=msgspec.json.encode(ask),
            streamed=ask.stream,
            usage_view=UsageView[asked.usage_view],
            prompts=1,
            n=ask.n,
            started_ns=TIME.perf_counter_ns(),
            charge=charge,
            on_settled=self._settled,
        )

    def _settled(self, record: UsageRecord) -> None:
        self.world.settled(self, record)
