"""One run: a plan is played over virtual time, everything recovers, and then the accounts must be right."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from world import credit, disk, statements_leases, statements_roll_ups, substitutes
from world.client import Client, End
from world.disk import Disk, Disks, Place
from world.engine import Engine, Job
from world.gateway import Gateway
from world.loop import OUTSIDE, Process, Quiet, VirtualLoop
from world.plan import Plan
from world.postgres import Server
from world.strikes import RECOVERY_S, THREAD_S, Strikes
from world.substitutes import EPOCH, RUN

from penstock_billing import adoption
from penstock_billing.prices import PriceBook, PriceVersion
from penstock_billing.record import UsageRecord

assert statements_leases
assert statements_roll_ups


class Host:
    """A machine: a disk, a clock, and gateways with whoever starts them again."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.name = name
        self.disk = world.disks.by_name[name] = Disk(name, random.Random(f"{world.plan.seed} disk {name}"))
        self.folder: Any = Place(f"{disk.ROOT}/{name}/journal")
        self.clock_offset_s = 0.0
        self.gateways: list[Gateway | None] = []
        self.down = False
        self.others: list[Process] = []


class Simulation:
    """The world of one run."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.tracing = tracing
        self.trace: list[str] = []
        self.problems: list[str] = []
        """What must not be."""
        self.rng = random.Random(f"{plan.seed} world")
        self.loop = VirtualLoop()
        self.disks = Disks(self.loop, random.Random(f"{plan.seed} disks"))
        self.begun = EPOCH.replace(hour=0, minute=0) + timedelta(minutes=plan.options.begin_minute)
        RUN.loop, RUN.rng, RUN.begun = self.loop, random.Random(f"{plan.seed} code"), self.begun
        disk.DISKS[:] = [self.disks]
        thread_rng = random.Random(f"{plan.seed} threads")
        self.loop.thread_delay_s = lambda: thread_rng.uniform(*THREAD_S)
        self.database = Server(self.loop, random.Random(f"{plan.seed} database"), substitutes.database_now)
        RUN.database, RUN.world = self.database, self
        self.prices = PriceBook()
        self.price_versions = [
            PriceVersion(1, "sim/chat", 150_000, 75_000, 600_000, EPOCH - timedelta(days=30)),
            PriceVersion(2, "sim/chat", 118_750, 9_375, 833_333, self.begun + timedelta(seconds=3)),
        ]
        self.prices.fill(self.price_versions)
        RUN.prices = self.prices
        self.made: dict[str, list[Job]] = {}
        self.engines = [
            Engine(self.loop, random.Random(f"{plan.seed} engine {number}"), f"engine-{number}", self.made)
            for number in range(plan.options.engines)
        ]
        self.hosts = [Host(self, f"h{number}") for number in range(plan.options.hosts)]
        self.clients: list[Client] = []
        self.by_request: dict[str, tuple[Client, Gateway]] = {}
        self.records: dict[str, tuple[float, UsageRecord, Host]] = {}
        """What was in a journal, when, and on which host, by request."""
        self.lowest: dict[tuple[int, int], int] = {}
        """The least that each wallet ever had, where that was less than nothing."""
        self.noted: dict[str, int] = {}
        """Output tokens that were noted of streams, by request."""
        self.killed_with: dict[str, str] = {}
        """Requests that were under way in a process that was killed, and how."""
        self.may_be_lost: set[str] = set()
        """Requests whose records a power cut took within its bound."""
        self.admitted: dict[str, int] = {}
        self.restored = False
        self.backup: Any = None
        self.conflicts = 0
        self.lives = 0
        self.ending = False
        self.healed = False
        self.strikes = Strikes(self)

    # What the run is told.

    def say(self, text: str) -> None:
        """Add a line to the trace, where one is wanted."""
        if self.tracing:
            self.trace.append(f"{self.loop.time():10.4f}  {text}")

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.say(f"PROBLEM {text}")
        self.problems.append(text)

    def begin(self, client: Client, gateway: Gateway) -> None:
        """A request was taken."""
        self.by_request[client.request_id] = (client, gateway)
        if self.tracing:
            self.say(f"{gateway.process} takes {client.request_id[-6:]} (request {client.asked.number})")

    def settled(self, gateway: Gateway, record: UsageRecord) -> None:
        """A record is in the journal, its response has not ended."""
        if record.request_id in self.records:
            self.problem(f"{record.request_id} is settled twice")
        self.records[record.request_id] = (self.loop.time(), record, gateway.process.host)
        if self.tracing:
            self.say(
                f"{gateway.process} settles {record.request_id[-6:]}: {record.outcome}, "
                f"{record.input_tokens}+{record.output_tokens} tokens, {record.cost_nano_usd} n$"
            )
        if gateway.process.host in self.strikes.cut_at_append:
            self.strikes.cut_soon(gateway.process.host)
        if gateway in self.strikes.kill_at_append:
            self.strikes.kill_at_append.discard(gateway)
            self.strikes.kill(gateway, "killed between journal and last byte")

    def note_shipper(self, gateway: Gateway) -> None:
        """What a shipper counted until its end."""
        self.conflicts += gateway.shipper.state.conflicts

    def admitted_price(self, client: Client) -> int | None:
        """The price version that was in force when a request was let in."""
        return self.admitted.get(client.request_id)

    @property
    def engine_trouble(self) -> bool:
        """Whether an engine died or stalled: then the last count seen on a stream may have to stand."""
        return any(each.kind in {"engine_dies", "engine_stalls"} for each in self.plan.faults)

    @property
    def disk_trouble(self) -> bool:
        """Whether a disk refused: then a record may not be written, and its response fails."""
        return any(each.kind in {"disk_full", "disk_fails"} for each in self.plan.faults)

    # The run.

    def run(self) -> list[str]:
        """Play the plan; returns what was wrong, [] when nothing was."""
        kept = adoption.BATCH_FRAMES
        adoption.BATCH_FRAMES = self.plan.options.batch_frames
        try:
            OUTSIDE.copy().run(self._play)
        finally:
            adoption.BATCH_FRAMES = kept
            for process in self._processes():
                process.dead = True
            self.loop.finish()
        self.problems += self.loop.problems
        return self.problems

    def _processes(self) -> list[Process]:
        found = [each for host in self.hosts for each in host.others]
        return found + [each.process for host in self.hosts for each in host.gateways if each is not None]

    def _play(self) -> None:
        from world import check

        loop, plan = self.loop, self.plan
        for host in self.hosts:
            host.gateways = [None] * plan.options.gateways
            for place in range(plan.options.gateways):
                self.start(host, place)
        for asked in plan.requests:
            loop.outside(asked.at_s, self._arrive, asked)
        credit.begin(self)
        for fault in plan.faults:
            loop.outside(fault.at_s, self.strikes.strike, fault)
        last_s = max([0.0, *[each.at_s for each in plan.requests], *[each.at_s for each in plan.faults]])
        try:
            loop.run_while(lambda: True, last_s + self.rng.choice((0.001, 1.0, 4.0)))
            self.strikes.heal()
            self._await("every client has an end", lambda: all(c.end is not End.OPEN for c in self.clients))
            self._await("every request is over", self._quiet)
            self._await("a gateway lives on every host", self._all_ready)
            self._await("every journal is shipped to its end", lambda: check.all_shipped(self), 0.5)
            self._await("the leases of the dead are released", lambda: credit.all_released(self), 0.5)
            self.ending = True
            for host in self.hosts:
                for gateway in host.gateways:
                    if gateway is not None:
                        gateway.stopping.set()
            self._await("every gateway ends when told", lambda: all(p.dead for p in self._processes()))
        except Quiet:
            return
        check.check(self)

    def _await(self, what: str, done: Any, every_s: float = 0.02) -> None:
        """Let time pass until something holds; that it never does is a failure (liveness)."""
        begun_s, asked_s = self.loop.time(), -1.0

        def wanted() -> bool:
            nonlocal asked_s
            if self.loop.time() - asked_s < every_s:
                return True
            asked_s = self.loop.time()
            return not done()

        try:
            self.loop.run_while(wanted, begun_s + RECOVERY_S)
        except Quiet:
            pass
        if not done():
            self.problem(f"never: {what}")
            raise Quiet

    def living(self, host: Host) -> list[Gateway]:
        """The gateways of a host that are there, ready or not."""
        return [g for g in host.gateways if g is not None and not g.process.dead]

    def living_boots(self) -> set[str]:
        """The boot ids of the processes that live."""
        return {
            gateway.journal.boot_id.hex()
            for host in self.hosts
            for gateway in self.living(host)
            if hasattr(gateway, "journal")
        }

    def _quiet(self) -> bool:
        return not any(gateway.requests for host in self.hosts for gateway in self.living(host))

    def _all_ready(self) -> bool:
        return all(any(g is not None and g.ready for g in host.gateways) for host in self.hosts)

    def start(self, host: Host, place: int) -> None:
        """Start a gateway, and start another when it is gone."""
        now = host.gateways[place]
        if host.down or self.ending or (now is not None and not now.process.dead):
            return
        self.lives += 1
        gateway = host.gateways[place] = Gateway(self, host, f"{host.name}/gateway-{self.lives}")
        self.say(f"{gateway.process} starts")

        def again() -> None:
            host.others.append(gateway.process)
            self.loop.outside(self.rng.uniform(0.05, 1.0), self.start, host, place)

        gateway.process.at_death.append(again)

    def _arrive(self, asked: Any) -> None:
        client = Client(self.loop, asked)
        self.clients.append(client)
        ready = [g for host in self.hosts for g in host.gateways if g is not None and g.ready]
        if not ready:
            client.settle(End.REFUSED, "no gateway")
            return
        ready[asked.number % len(ready)].take(client)
        if asked.leave_after_s is not None:
            self.loop.outside(asked.leave_after_s, client.leave)
