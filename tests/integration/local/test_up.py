"""`penstock up` as a process, without engines: what it starts, what it says, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

START_S = 60

CARDS = Path(__file__).parents[3] / "catalog" / "penstock_catalog" / "cards"


class Up:
    """A `penstock up` of a test's own."""

    def __init__(self, home: Path, *arguments: str, models: str = "", **environment: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        self.environment = kept | {"PENSTOCK_HOME": str(home), "PENSTOCK_MODELS": models} | environment
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock.cli", "up", "--port", "0", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> dict[str, str]:
        """Wait until it is; returns the JSON line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        told: dict[str, str] = json.loads(line)
        return told

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Wait for its end, asked for by a signal or not; returns status and standard error."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=START_S)
        return self.process.returncode, errors

    def family(self) -> set[int]:
        """Every living process it started, and theirs."""
        found, new = set[int](), {self.process.pid}
        while new:
            new = {pid for pid, parent in parents() if parent in new} - found
            found |= new
        return found

    def child(self, name: str) -> int:
        """The process id of one direct child, by a part of its command line."""
        [pid] = [
            pid
            for pid, parent in parents()
            if parent == self.process.pid and name in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return pid


def parents() -> list[tuple[int, int]]:
    """Every living process with its parent; zombies are not alive."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if entry.name.isdigit() and state != "Z":
            found.append((int(entry.name), int(parent)))
    return found


def until(so: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `penstock up` on tmp_path/home; whatever is left is killed."""
    started: list[Up] = []

    def start(*arguments: str, models: str = "", **environment: str) -> Up:
        started.append(Up(tmp_path / "home", *arguments, models=models, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_it_starts_says_so_in_one_line_and_stops_without_a_trace(up: Callable[..., Up]) -> None:
    one = up("--json", "--workers", "2")
    told = one.ready()
    assert told["pid"] == one.process.pid
    assert httpx.get(told["base_url"].removesuffix("/v1") + "/healthz").status_code == 200
    headers = {"Authorization": f"Bearer {told['api_key']}"}
    assert httpx.get(told["base_url"] + "/models", headers=headers).status_code == 200
    form = {"email": told["portal_email"], "password": told["portal_password"]}
    signed_in = httpx.post(
        told["portal_url"] + "/sign-in", data=form, headers={"sec-fetch-site": "same-origin"}
    )
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/portal")
    family = one.family()
    assert len(family) >= 5
    status, errors = one.end(signal.SIGTERM)
    assert status == 0, errors
    assert not family & {pid for pid, _ in parents()}
    assert not (one.home / "run.json").exists()


def test_no_process_outlives_a_killed_one_and_the_next_start_finds_everything(up: Callable[..., Up]) -> None:
    first = up("--json")
    told = first.ready()
    family = first.family()
    first.process.kill()
    first.process.wait()
    until(lambda: not family & {pid for pid, _ in parents()}, within_s=5)
    second = up("--json")
    again = second.ready()
    headers = {"Authorization": f"Bearer {told['api_key']}"}
    assert httpx.get(again["base_url"] + "/models", headers=headers).status_code == 200
    assert again["api_key"] != told["api_key"]
    assert again["portal_url"].endswith("/portal")
    assert (again["portal_email"], again["portal_password"]) == (None, None)
    assert second.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize("name", ["gateway", "controller", "postgres", "valkey-server"])
def test_a_child_that_dies_is_started_again(up: Callable[..., Up], name: str) -> None:
    one = up("--json")
    told = one.ready()
    before = one.child(name)
    os.kill(before, signal.SIGKILL)
    until(lambda: before not in one.family() and [p for p in one.family() if name in command(p)])
    headers = {"Authorization": f"Bearer {told['api_key']}"}
    until(lambda: answers(told["base_url"] + "/models", headers))
    status, errors = one.end(signal.SIGTERM)
    assert status == 0
    assert "was killed by SIGKILL" in errors


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def answers(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(url, headers=headers).status_code == 200
    except httpx.HTTPError:
        return False


def test_for_people_the_key_is_shown_at_the_first_start_only(up: Callable[..., Up]) -> None:
    texts = []
    for _ in range(2):
        one = up()
        until((one.home / "run.json").exists, START_S)
        one.process.send_signal(signal.SIGTERM)
        text, _ = one.process.communicate(timeout=START_S)
        texts.append(text)
    assert "sk-penstock-" in texts[0]
    assert "sk-penstock-" not in texts[1]
    assert "penstock keys create" in texts[1]
    assert all("/v1/chat/completions" in text for text in texts)


def test_a_signal_while_it_starts_ends_it_cleanly(up: Callable[..., Up]) -> None:
    one = up("--json")
    until(lambda: [pid for pid in one.family() if "postgres" in command(pid)])
    family = one.family()
    status, _ = one.end(signal.SIGTERM)
    assert status == 130
    # The workers of a PostgreSQL that was starting leave a moment after it.
    until(lambda: not family & {pid for pid, _ in parents()}, within_s=5)


def test_a_taken_port_is_said_before_anything_is_started(up: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        one = up("--json", "--port", port)
        status, errors = one.end()
    assert status == 1
    assert f"port {port} is in use by" in errors
    assert errors.strip().endswith("--port")
    assert not (one.home / "postgres" / "data").exists()


def test_two_on_one_folder_are_refused(up: Callable[..., Up]) -> None:
    first = up("--json")
    first.ready()
    status, errors = up("--json").end()
    assert status == 1
    assert f"process {first.process.pid}) uses" in errors
    assert first.end(signal.SIGTERM)[0] == 0


def test_a_state_folder_that_is_a_file_is_said(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    status, errors = up("--json").end()
    assert status == 1
    assert "is a file: set PENSTOCK_HOME to a folder" in errors
    assert "Traceback" not in errors


def test_a_database_that_does_not_answer_is_said_without_its_password(up: Callable[..., Up]) -> None:
    status, errors = up("--json", PENSTOCK_DATABASE_URL="postgresql://u:secret@127.0.0.1:1/d").end()
    assert status == 1
    assert "the database postgresql://u:***@127.0.0.1:1/d cannot be used" in errors
    assert "secret" not in errors


async def test_a_database_of_ones_own_is_used_instead(up: Callable[..., Up], database_url: str) -> None:
    one = up("--json", PENSTOCK_DATABASE_URL=database_url)
    one.ready()
    assert not (one.home / "postgres" / "data").exists()
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from access.api_key") == 1
    await connection.close()
    assert one.end(signal.SIGTERM)[0] == 0


def test_a_model_without_a_card_is_said(up: Callable[..., Up]) -> None:
    status, errors = up("--json", models="nobody/nothing").end()
    assert status == 1
    assert "nobody/nothing" in errors
    assert "card" in errors


def test_a_bad_card_is_said_with_its_file_line_and_field(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "me--mine.yaml").write_text("id: me/mine\nparameters: many\n")
    status, errors = up("--json", PENSTOCK_CARDS=str(tmp_path / "cards")).end()
    assert status == 1
    assert "me--mine.yaml:2" in errors
    assert "parameters" in errors


def test_a_model_whose_weights_cannot_be_had_ends_the_start_with_the_reason(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "cards").mkdir()
    card = (CARDS / "penstock--demo-chat.yaml").read_text()
    mine = card.replace("penstock/demo-chat", "me/mine").replace("../../demo/chat", "/does/not/exist")
    (tmp_path / "cards" / "me--mine.yaml").write_text(mine)
    status, errors = up("--json", models="me/mine", PENSTOCK_CARDS=str(tmp_path / "cards")).end()
    assert status == 1
    assert "no engine can serve me/mine" in errors
    assert "/does/not/exist" in errors


def test_a_setting_that_makes_no_sense_is_said(up: Callable[..., Up]) -> None:
    status, errors = up("--json", PENSTOCK_DRAIN_S="soon").end()
    assert status == 1
    assert "PENSTOCK_DRAIN_S is 'soon': it must be a number" in errors


def test_a_state_folder_too_deep_for_an_engines_socket_is_said(up: Callable[..., Up], tmp_path: Path) -> None:
    home = tmp_path / ("d" * 80)
    status, errors = up("--json", models="penstock/demo-chat", PENSTOCK_HOME=str(home)).end()
    assert status == 1
    assert "set PENSTOCK_HOME to a path of at most" in errors
    longest = int(errors.rsplit("at most ", 1)[1].split()[0])
    assert longest + len("/engines/demo-chat-1234/engine.sock") == 107
