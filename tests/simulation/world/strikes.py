"""What goes wrong in a run: each fault of a plan is a method here, called by its kind."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from world import check
from world.gateway import Gateway
from world.loop import Process
from world.plan import Fault

from penstock_billing.boots import PROGRESS_SUFFIX
from penstock_billing.journal import SYNC_INTERVAL_S
from penstock_billing.shipper import Shipper

if TYPE_CHECKING:
    from world.simulation import Host, Simulation

THREAD_S = (0.0005, 0.02)
"""How long a thread's work takes: forcing data to the disk, reading a batch."""
POWER_CUT_TAKES_S = SYNC_INTERVAL_S + 2 * THREAD_S[1] + 0.01
"""What a power cut may take, told by how long ago it was written: one round of forcing and the next."""
LATENCY_S = (0.0002, 0.002)
"""How long a statement takes."""
RECOVERY_S = 300.0
"""By then everything has recovered, or never will."""


class Strikes:
    """The hand that breaks things."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.loop = world.loop
        self.plan = world.plan
        self.hosts = world.hosts
        self.engines = world.engines
        self.disks = world.disks
        self.database = world.database
        self.say = world.say
        self.problem = world.problem
        self.kill_at_append: set[Gateway] = set()
        self.cut_at_append: dict[Host, Fault] = {}
        world.disks.kill = self._killed_in_a_change
        self.killed_at_s: dict[Gateway, float] = {}

    def strike(self, fault: Fault) -> None:
        """Make a fault happen."""
        self.say(f"fault {fault.kind} {fault.target} for {fault.for_s} s ({fault.amount})")
        getattr(self, f"_{fault.kind}")(fault)

    def _gateway(self, number: int) -> Gateway | None:
        living = [g for host in self.hosts for g in host.gateways if g is not None and not g.process.dead]
        return living[number % len(living)] if living else None

    def kill(self, gateway: Gateway, how: str = "kill -9") -> None:
        """SIGKILL, between two instructions."""
        self.say(f"{how}: {gateway.process}")
        for client in gateway.requests.values():
            if client.request_id and client.request_id not in self.world.records:
                self.world.killed_with[client.request_id] = how
        self.killed_at_s[gateway] = self.loop.time()
        if gateway.ready:
            self.world.note_shipper(gateway)
        gateway.process.kill()

    def _kill_gateway(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            self.kill(gateway)

    def _kill_at_append(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            self.kill_at_append.add(gateway)

    def _kill_at_change(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            gateway.process.changes_left = int(fault.amount)

    def _kill_at_slot(self, fault: Fault) -> None:
        """Every gateway of a host, each when it has written so often what its streams used."""
        for gateway in self.world.living(self.hosts[fault.target % len(self.hosts)]):
            gateway.process.changes_of = PROGRESS_SUFFIX
            gateway.process.changes_left = int(fault.amount)

    def _killed_in_a_change(self, process: Process) -> None:
        for host in self.hosts:
            for gateway in host.gateways:
                if gateway is not None and gateway.process is process:
                    self.kill(gateway, "killed in a change of its disk")
        process.kill()

    def _stop_gateway(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            gateway.stopping.set()

    def _freeze_gateway(self, fault: Fault) -> None:
        """SIGSTOP, and SIGCONT later: others must take nothing that is its own."""
        if (gateway := self._gateway(fault.target)) is not None and gateway.process.stopped is None:
            gateway.process.stopped = []
            self.loop.outside(fault.for_s, self.loop.go_on, gateway.process)

    def _second_shipper(self, fault: Fault) -> None:
        """Another process that ships a host's journals, as an operator may start."""
        host = self.hosts[fault.target % len(self.hosts)]
        if host.down:
            return
        process = Process(f"{host.name}/shipper", host)
        process.at_death.append(lambda: self.disks.close_all_of(process))
        host.others.append(process)

        async def ship() -> None:
            other = Shipper("simulated", host.folder, keep=timedelta(seconds=self.plan.options.keep_s))
            await other.run()

        self.loop.spawn(process, ship())
        self.loop.outside(fault.for_s + 1.0, process.kill)

    def _power_cut_at_append(self, fault: Fault) -> None:
        self.cut_at_append[self.hosts[fault.target % len(self.hosts)]] = fault

    def cut_soon(self, host: Host) -> None:
        """A record was written: the power goes before, or while, it is forced to the disk."""
        fault = self.cut_at_append.pop(host)
        self.loop.outside(self.world.rng.uniform(0, 0.07), self._cut, host, fault.for_s)

    def _power_cut(self, fault: Fault) -> None:
        self._cut(self.hosts[fault.target % len(self.hosts)], fault.for_s)

    def _cut(self, host: Host, for_s: float) -> None:
        if host.down or self.world.ending:
            return
        self.say(f"power cut: {host.name}")
        host.down = True
        for gateway in host.gateways:
            if gateway is not None and not gateway.process.dead:
                self.kill(gateway, "power cut")
        for process in host.others:
            process.kill()
        host.disk.power_cut()
        self._note_losses(host)
        for request_id in self.world.killed_with:
            # Notes are not forced to the disk: those that nobody had adopted may be gone.
            if self.world.by_request[request_id][1].process.host is host:
                self.world.killed_with[request_id] = "power cut"
        self.loop.outside(for_s, self._power_back, host)

    def _note_losses(self, host: Host) -> None:
        kept = check.journalled(host) | check.events(self).keys()
        for request_id, (settled_at_s, _, where) in self.world.records.items():
            if where is host and request_id not in kept and request_id not in self.world.may_be_lost:
                writer = self.world.by_request[request_id][1]
                age_s = min(self.loop.time(), self.killed_at_s.get(writer, self.loop.time())) - settled_at_s
                if age_s > POWER_CUT_TAKES_S and not host.disk.failing:
                    self.problem(
                        f"{request_id} was journalled {age_s:.3f} s before the power cut, and is lost"
                    )
                self.world.may_be_lost.add(request_id)

    def _power_back(self, host: Host) -> None:
        host.down = False
        for place in range(len(host.gateways)):
            gateway = host.gateways[place]
            if gateway is None or gateway.process.dead:
                self.world.start(host, place)

    def _disk_full(self, fault: Fault) -> None:
        host = self.hosts[fault.target % len(self.hosts)]
        host.disk.full = True

        def room() -> None:
            host.disk.full = False

        self.loop.outside(fault.for_s, room)

    def _disk_fails(self, fault: Fault) -> None:
        host = self.hosts[fault.target % len(self.hosts)]
        host.disk.failing = True

        def repaired() -> None:
            host.disk.failing = False

        self.loop.outside(fault.for_s, repaired)

    def _clock_jump(self, fault: Fault) -> None:
        self.hosts[fault.target % len(self.hosts)].clock_offset_s += fault.amount

    def _database_away(self, fault: Fault) -> None:
        self.database.stop()
        self.loop.outside(fault.for_s, self.database.start)

    def _database_frozen(self, fault: Fault) -> None:
        self.database.freeze()
        self.loop.outside(fault.for_s, self.database.thaw)

    def _database_slow(self, fault: Fault) -> None:
        self.database.latency_s = (fault.amount / 10, fault.amount)

        def usual() -> None:
            self.database.latency_s = LATENCY_S

        self.loop.outside(fault.for_s, usual)

    def _cut_connections(self, fault: Fault) -> None:
        self.database.cut_all()

    def _cut_after_commit(self, fault: Fault) -> None:
        self.database.cut_after_commit += int(fault.amount)

    def _cut_before_commit(self, fault: Fault) -> None:
        self.database.cut_before_commit += int(fault.amount)

    def _restore(self, fault: Fault) -> None:
        """A backup is made now, and the database is set back to it later."""
        if self.plan.options.keep_s < RECOVERY_S:
            return
        backup = self.database.backup()

        def restored() -> None:
            if self.world.healed:
                return
            self.say("the database is restored from a backup")
            self.world.restored = True
            self.database.restore(backup)

        self.loop.outside(fault.for_s, restored)

    def _engine_dies(self, fault: Fault) -> None:
        engine = self.engines[fault.target % len(self.engines)]
        engine.die()
        self.loop.outside(fault.for_s, engine.start)

    def _engine_stalls(self, fault: Fault) -> None:
        engine = self.engines[fault.target % len(self.engines)]
        engine.stalled = True

        def goes_on() -> None:
            engine.stalled = False

        self.loop.outside(fault.for_s, goes_on)

    def heal(self) -> None:
        """From here on nothing goes wrong any more: everything has to recover."""
        self.world.healed = True
        database = self.database
        database.cut_after_commit = database.cut_before_commit = 0
        database.latency_s = LATENCY_S
        database.start()
        database.thaw()
        for host in self.hosts:
            host.disk.full = host.disk.failing = False
        for engine in self.engines:
            if engine.stalled:
                engine.stalled = False
            engine.start()
        for host in self.hosts:
            for gateway in self.world.living(host):
                self.loop.go_on(gateway.process)
        self.kill_at_append.clear()
        self.cut_at_append.clear()
