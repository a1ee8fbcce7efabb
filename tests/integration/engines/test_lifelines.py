"""Whichever process of an engine is killed, nothing of the engine is left. Real processes, real vLLM."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

Group = Callable[[int], dict[int, str]]
Wait = Callable[..., Coroutine[Any, Any, None]]

KEEPER = """
import asyncio, sys
from pathlib import Path
from penstock_catalog.cards import EngineSettings, Task
from penstock_engines.launch import ZygoteLauncher
from penstock_engines.replica import Replica, ReplicaState
from penstock_engines.spec import EngineSpec

async def main(folder, weights):
    launcher = ZygoteLauncher(folder)
    settings = EngineSettings(max_concurrent_requests=4, kv_cache_mib=32)
    spec = EngineSpec("penstock/demo-chat", weights, Task.CHAT, 512, settings)
    async def changed(replica):
        if replica.state is ReplicaState.READY:
            print(launcher.zygote_pid, replica.pid, flush=True)
    await Replica(spec, launcher, folder / "e", changed).run()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def shared_memory_of(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"p{pid}_*"))


async def test_killing_the_keeper_leaves_no_process(
    place: Path, chat_spec: Any, engine_processes: Group, wait_until: Wait
) -> None:
    keeper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KEEPER, str(place), str(chat_spec.weights)), stdout=asyncio.subprocess.PIPE
    )
    assert keeper.stdout is not None
    zygote, engine = map(int, (await asyncio.wait_for(keeper.stdout.readline(), 200)).split())
    assert len(engine_processes(engine)) >= 3
    keeper.kill()
    await keeper.wait()
    await wait_until(lambda: not engine_processes(engine), "the end of the engine", 10)
    await wait_until(lambda: not engine_processes(zygote), "the end of the zygote", 10)
    for path in shared_memory_of(engine):
        path.unlink()  # the zygote, which removes it, was killed as well


async def test_killing_the_zygote_ends_its_engines_and_the_next_launch_makes_another(
    place: Path, chat_spec: Any, engine_processes: Group, wait_until: Wait
) -> None:
    from penstock_engines.launch import ZygoteLauncher

    launcher = ZygoteLauncher(place)
    folder = place / "e"
    folder.mkdir()
    try:
        engine = await launcher.launch(chat_spec, folder, folder / "log")
        await wait_until(lambda: len(engine_processes(engine.pid)) >= 3, "all parts of the engine")
        first = launcher.zygote_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert await asyncio.wait_for(engine.wait(), 10) == -9
        await wait_until(lambda: not engine_processes(engine.pid), "the end of the engine", 10)
        await wait_until(lambda: launcher.zygote_pid is None, "the launcher's knowing of it", 10)
        (folder / "engine.sock").unlink(missing_ok=True)
        again = await launcher.launch(chat_spec, folder, folder / "log")
        assert launcher.zygote_pid not in (None, first)
        again.kill()
        assert await asyncio.wait_for(again.wait(), 10) == -9
    finally:
        await launcher.close()


@pytest.mark.parametrize("part", ["api", "EngineCore", "Worker"])
async def test_killing_a_part_of_an_engine_ends_all_of_it(
    warm_launcher: Any, place: Path, chat_spec: Any, engine_processes: Group, wait_until: Wait, part: str
) -> None:
    engine = await warm_launcher.launch(chat_spec, place, place / "log")
    await wait_until((place / "engine.sock").exists, "the engine's socket")
    # The worker is named last, and then everything is there.
    await wait_until(
        lambda: any("Worker" in name for name in engine_processes(engine.pid).values()), "worker"
    )
    victims = [pid for pid, name in engine_processes(engine.pid).items() if part in name] or [engine.pid]
    os.kill(victims[0], signal.SIGKILL)
    await asyncio.wait_for(engine.wait(), 60)
    await wait_until(lambda: not engine_processes(engine.pid), "the end of the others", 10)
    assert shared_memory_of(engine.pid) == []


async def test_closing_the_connection_ends_the_engine(
    warm_launcher: Any, place: Path, chat_spec: Any, engine_processes: Group, wait_until: Wait
) -> None:
    engine = await warm_launcher.launch(chat_spec, place, place / "log")
    await wait_until(lambda: len(engine_processes(engine.pid)) >= 3, "all parts of the engine")
    engine._writer.close()
    await asyncio.wait_for(engine.wait(), 10)
    await wait_until(lambda: not engine_processes(engine.pid), "the end of the engine", 10)


async def test_an_engine_has_no_secret_and_no_socket_of_those_that_started_it(
    warm_launcher: Any, place: Path, chat_spec: Any, wait_until: Wait
) -> None:
    engine = await warm_launcher.launch(chat_spec, place, place / "log")
    await wait_until((place / "engine.sock").exists, "the engine's socket")
    process = Path("/proc") / str(engine.pid)
    environment = (process / "environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret-of-the-parent" not in environment
    sockets = Path("/proc/net/unix").read_text().splitlines()  # noqa: ASYNC240 - it does not block
    listening = [line.split() for line in sockets]
    # The kernel keeps the name that it was bound by.
    zygotes = re.compile(r"/zygote-[^/]+\.new$")
    zygote_inodes = {f"socket:[{line[6]}]" for line in listening if zygotes.search(line[-1])}
    assert zygote_inodes
    assert not zygote_inodes & {str(entry.readlink()) for entry in (process / "fd").iterdir()}
    engine.kill()
    await engine.wait()


async def test_an_engine_as_a_process_of_its_own_dies_with_its_parent_too(
    place: Path, chat_spec: Any, engine_processes: Group, wait_until: Wait
) -> None:
    """The way for GPUs, on a CPU: every part is spawned and imports for itself, so this takes a while."""
    from penstock_engines.launch import DirectLauncher
    from penstock_engines.spec import Device

    launcher = DirectLauncher(Device.CPU)
    engine = await launcher.launch(chat_spec, place, place / "log")
    try:

        def parts() -> list[int]:
            names = engine_processes(engine.pid).items()
            return [pid for pid, name in names if "spawn_main" in name or "EngineCore" in name]

        await wait_until(lambda: bool(parts()), "a spawned part", 120)
        # Its interpreter asks for the signal once it has imported our module.
        await wait_until(
            lambda: "p" + str(engine.pid) in " ".join(map(str, shared_memory_of(engine.pid))),
            "the part's shared memory",
            120,
        )
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.wait_for(engine._process.wait(), 10)
        await wait_until(lambda: not parts(), "the end of the spawned parts", 10)
    finally:
        await launcher.close()
    assert shared_memory_of(engine.pid) == []
