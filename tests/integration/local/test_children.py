"""Child processes of our own, with real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.local import accounts, children, keeping, problems


def start(folder: Path, code: str, name: str = "child") -> children.Child:
    return children.start(
        name,
        [sys.executable, "-c", textwrap.dedent(code)],
        log=folder / f"{name}.log",
        environment=children.bare_environment(),
        folder=folder,
    )


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not so():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.01)


async def until_logged(child: children.Child, text: str) -> None:
    await until(lambda: text in child.last_words())


async def test_a_child_that_is_asked_to_stop_may_finish(tmp_path: Path) -> None:
    code = """
    import signal, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print("up", flush=True)
    signal.pause()
    """
    child = start(tmp_path, code)
    await until_logged(child, "up")
    assert await child.stop(patience_s=10) == 7


async def test_a_child_that_does_not_listen_is_killed_with_its_group(tmp_path: Path) -> None:
    code = """
    import signal, subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    signal.pause()
    """
    child = start(tmp_path, code)
    await until(child.last_words)
    grandchild = int(child.last_words())
    assert await child.stop(patience_s=0.2) == -signal.SIGKILL
    await until(lambda: not alive(grandchild))


async def test_an_early_end_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = start(tmp_path, "raise SystemExit('the disk is made of cheese')")

    async def never() -> bool:
        return False

    with pytest.raises(
        problems.ChildError, match=r"child ended with status 1; see .*:\nthe disk is made of cheese"
    ):
        await children.until_ready(child, never, patience_s=10)


async def test_a_child_that_never_gets_ready_is_told_with_its_log(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; print('thinking', flush=True); time.sleep(60)")
    await until_logged(child, "thinking")

    async def never() -> bool:
        return False

    with pytest.raises(problems.ChildError, match=r"was not ready after 0 s; see .*:\nthinking"):
        await children.until_ready(child, never, patience_s=0.1)
    child.kill()
    await child.ended()


async def test_only_what_is_given_is_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    child = start(tmp_path, "import os; print(sorted(os.environ))")
    await child.ended()
    assert child.last_words() == str(sorted([*children.bare_environment()]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change account")
async def test_a_child_of_root_is_another_account_and_still_tied_to_us(tmp_path: Path) -> None:
    account = accounts.unprivileged()
    assert account is not None
    child = children.start(
        "child",
        ["/bin/sh", "-c", "id -u; id -G; sleep 60"],
        log=tmp_path / "child.log",
        environment=children.bare_environment(),
        folder=Path("/"),
        account=account,
    )
    await until_logged(child, "\n")
    assert child.last_words().splitlines() == [str(account.uid), str(account.gid)]
    child.kill()
    await child.ended()


def test_a_thread_may_not_start_children(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            start(tmp_path, "")
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
    import sys, time
    from pathlib import Path
    from penstock.local import children
    for number in range(3):
        child = children.start("c", ["/bin/sleep", "60"], log=Path({str(tmp_path)!r}) / "c.log",
                               environment={{}}, folder=Path("/"))
        print(child.pid, flush=True)
    time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(parent.stdout.readline()) for _ in range(3)]
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in pids if alive(pid)]


async def test_a_kept_child_comes_back_and_stays_away_once_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAUSE_FIRST_S", 0.01)
    started: list[children.Child] = []
    notes: list[str] = []
    ended: list[int] = []

    async def begin() -> children.Child:
        started.append(start(tmp_path, "import time; time.sleep(60)"))
        return started[-1]

    kept = keeping.Kept(begin, notes.append, patience_s=5, after_end=lambda child: ended.append(child.pid))
    await kept.start()
    kept.tolerant = True
    watching = asyncio.create_task(kept.keep())
    started[0].kill()
    await until(lambda: len(started) == 2)
    assert ended == [started[0].pid]
    assert notes == [f"child was killed by SIGKILL; see {tmp_path / 'child.log'}; starting it again in 0.0 s"]
    await kept.stop()
    await asyncio.wait_for(watching, 5)
    assert len(started) == 2
    assert not started[1].running


async def test_before_all_is_ready_an_end_is_an_error(tmp_path: Path) -> None:
    async def begin() -> children.Child:
        return start(tmp_path, "raise SystemExit(3)")

    kept = keeping.Kept(begin, lambda _: None, patience_s=5)
    await kept.start()
    with pytest.raises(problems.ChildError, match="ended with status 3"):
        await kept.keep()
