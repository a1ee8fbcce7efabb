"""Paths, ports, pauses and words: what `penstock up` decides without starting anything."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from penstock.local import (
    accounts,
    children,
    first_run,
    keeping,
    listening,
    problems,
    sockets,
    up,
    welcome,
)
from penstock_engines import machine


def test_a_short_socket_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert sockets.short_way(Path("/run/penstock"), "a.sock") == Path("/run/penstock")


def test_a_socket_deep_down_is_reached_through_a_private_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    way = sockets.short_way(deep, "a.sock")
    assert len(os.fsencode(way / "a.sock")) <= sockets.PATH_BYTES_MAX
    assert way.resolve() == deep.resolve()
    assert sockets.short_way(deep, "a.sock") == way
    assert way.parent.stat().st_mode & 0o077 == 0
    way.unlink()


def test_a_link_folder_that_others_may_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"penstock-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(problems.LocalError, match="must be a folder of yours alone"):
        sockets.short_way(tmp_path / ("d" * 100), "a.sock")


def test_an_account_needs_every_folder_on_its_way(tmp_path: Path) -> None:
    stranger = accounts.Account("stranger", 54321, 54321)
    (tmp_path / "closed" / "open").mkdir(parents=True, mode=0o755)
    (tmp_path / "closed").chmod(0o700)
    assert not accounts.can_enter(stranger, tmp_path / "closed" / "open")
    assert accounts.can_enter(stranger, Path("/usr"))
    assert accounts.can_enter(None, tmp_path / "closed" / "open")


async def test_a_taken_port_is_named_with_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LAST_RUN_MAY_TAKE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = rf"port {port} is in use by \S+.* \(process {os.getpid()}\): .*--port"
        with pytest.raises(problems.PortError, match=expected):
            await listening.bind("127.0.0.1", port)


async def test_a_port_that_is_let_go_in_time_is_had() -> None:
    import asyncio

    taken = socket.create_server(("127.0.0.1", 0))
    asyncio.get_running_loop().call_later(0.2, taken.close)
    port = taken.getsockname()[1]
    with await listening.bind("127.0.0.1", port) as listener:
        assert listener.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
async def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(problems.PortError, match="--host"):
        await listening.bind(host, 0)


async def test_clients_here_reach_a_listener_on_every_address_by_loopback() -> None:
    with await listening.bind("0.0.0.0", 0) as listener:
        assert listening.base_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [keeping.pause_s(n) for n in (1, 2, 3, 6, 7, 100)] == [0.5, 1, 2, 16, 30, 30]


def test_logs_turn_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for number in range(6):
        log.write_text(str(number))
        children.rotate(log)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.log.1": "5",
        "a.log.2": "4",
        "a.log.3": "3",
    }


def test_a_gateway_gets_no_secret_meant_for_others() -> None:
    environ = {
        "PATH": "/bin",
        "PENSTOCK_HOME": "/h",
        "HF_TOKEN": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
        "LC_ALL": "C",
    }
    told = children.own_environment(environ, {"PENSTOCK_REDIS_URL": "r"})
    assert set(told) == {"PATH", "PENSTOCK_HOME", "LC_ALL", "PENSTOCK_REDIS_URL"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u@/d?host=/s&port=1", "postgresql://u@/d?host=/s&port=1"),
        ("redis://:p%40p@h/0", "redis://:***@h/0"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert up.without_password(url) == shown


def test_the_welcome_shows_the_key_and_snippets_that_use_it() -> None:
    account = first_run.FirstAccount("admin@localhost", "abc-def")
    text = welcome.text(
        welcome.Ready("http://127.0.0.1:1/v1", "sk-x", "a/b", 1.0, "http://127.0.0.1:1/portal", account)
    )
    assert text.count("sk-x") == 3
    assert "http://127.0.0.1:1/v1/chat/completions" in text
    assert f"{sys.executable} - <<'EOF'" in text
    assert "http://127.0.0.1:1/portal\n" in text
    assert "sign in as admin@localhost with abc-def   (shown this once)" in text


def test_later_the_welcome_reads_the_key_from_the_environment() -> None:
    ready = welcome.Ready("http://127.0.0.1:1/v1", None, "a/b", 1.0, "http://127.0.0.1:1/portal", None)
    text = welcome.text(ready)
    assert "Bearer $PENSTOCK_API_KEY" in text
    assert 'os.environ["PENSTOCK_API_KEY"]' in text
    assert "import os" in text
    assert "keys create" in text
    assert "http://127.0.0.1:1/portal" in text
    assert "sign in" not in text
    told = json.loads(welcome.as_json(ready, 7))
    assert (told["portal_url"], told["portal_password"]) == ("http://127.0.0.1:1/portal", None)


def test_a_processor_is_read_as_the_kernel_tells_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n\nmodel name\t: Other\n"
    )
    cpu = machine.processor(tmp_path / "cpuinfo")
    assert (cpu.model, cpu.features) == ("Some CPU", ("avx2", "avx512f"))


@pytest.mark.parametrize(("limit", "total_mib", "free_mib"), [("max", 1000, 500), ("209715200", 200, 100)])
def test_a_containers_limit_is_the_memory_there_is(
    tmp_path: Path, limit: str, total_mib: int, free_mib: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1024000 kB\nMemAvailable: 512000 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("104857600\n")
    assert machine.memory_bytes(tmp_path / "meminfo", tmp_path) == (total_mib * 2**20, free_mib * 2**20)
