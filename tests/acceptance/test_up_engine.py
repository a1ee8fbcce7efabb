"""`penstock up` with a real engine: the printed snippets as pasted, and nothing left after `kill -9`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

CHAT = "penstock/demo-chat"
START_S = 300

pytestmark = pytest.mark.engine


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """With a state folder whose path is short enough for sockets."""
    folder = tempfile.mkdtemp(prefix="penstock-test-")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    yield kept | {"PENSTOCK_HOME": folder, "PENSTOCK_MODELS": CHAT}
    shutil.rmtree(folder)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts `penstock up`; no process of it is left afterwards."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **extra: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "penstock.cli", "up", "--port", "0", *arguments]
        pipe = subprocess.PIPE
        up = subprocess.Popen(command, env=environment | extra, stdout=pipe, stderr=pipe, text=True)
        started.append(up)
        return up

    yield begin
    for up in started:
        left = family(up)
        up.kill()
        up.communicate()
        assert not outlived(left)


def family(up: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(up.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def outlived(processes: list[psutil.Process], within_s: float = 10) -> list[str]:
    """Who still lives after a while; a zombie that nobody has reaped yet does not."""
    deadline = time.monotonic() + within_s
    while left := [process for process in processes if lives(process)]:
        if time.monotonic() > deadline:
            return [str(process) for process in left]
        time.sleep(0.05)
    return []


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(snippet: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        ["/bin/bash", "-c", snippet], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_both_printed_snippets_stream_as_pasted(environment: dict[str, str], start: Start) -> None:
    up = start()
    assert up.stdout is not None
    welcome = ""
    for line in up.stdout:
        welcome += line
        if line.startswith("Ctrl-C"):
            break
    else:
        pytest.fail(f"{welcome}\n{up.communicate()[1]}")
    curl = re.search(r"^curl .*?(?<!\\)\n", welcome, re.MULTILINE | re.DOTALL)
    python = re.search(r"^\S+ - <<'EOF'\n.*?^EOF$", welcome, re.MULTILINE | re.DOTALL)
    assert curl
    assert python
    streamed = run(curl[0], environment)
    assert streamed.count("data: {") > 2
    assert streamed.rstrip().endswith("data: [DONE]")
    said = "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        for line in streamed.splitlines()
        if line.startswith("data: {") and json.loads(line[6:])["choices"]
    )
    assert run(python[0], environment).strip() == said.strip()
    assert said
    up.terminate()
    assert up.wait(60) == 0
    up.communicate()


def test_no_engine_outlives_a_killed_up(start: Start) -> None:
    up = start("--json")
    assert up.stdout is not None
    assert up.stdout.readline(), up.communicate()[1]
    processes = family(up)
    # PostgreSQL, Valkey, gateway, controller, the engines' parent, and the engine's three processes.
    assert len(processes) >= 8
    up.kill()
    up.communicate()
    assert not outlived(processes)


def test_an_engine_that_cannot_start_is_the_reason_up_gives(start: Start, tmp_path: Path) -> None:
    # vLLM asks lscpu for the cores.
    up = start("--json", PATH=str(tmp_path))
    _, errors = up.communicate(timeout=START_S)
    assert up.returncode == 1
    assert f"the engine of {CHAT} ends each time it starts" in errors
    assert "lscpu" in errors.splitlines()[-1]
    assert "penstock doctor" in errors.splitlines()[-1]


def test_no_compiler_is_needed(start: Start, tmp_path: Path) -> None:
    lscpu = shutil.which("lscpu")
    assert lscpu
    (tmp_path / "lscpu").symlink_to(lscpu)
    up = start("--json", PATH=str(tmp_path))
    assert up.stdout is not None
    assert up.stdout.readline(), up.communicate()[1]
    up.terminate()
    assert up.wait(60) == 0
    up.communicate()
