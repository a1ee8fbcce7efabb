"""The embedded PostgreSQL and Valkey, for real."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import asyncpg
import pytest
from redis import asyncio as redis

from penstock.local import accounts, postgres, problems, valkey


async def count(url: str) -> int:
    connection = await asyncpg.connect(url)
    await connection.execute("create table if not exists line (id int)")
    await connection.execute("insert into line values (1)")
    lines: int = await connection.fetchval("select count(*) from line")
    await connection.close()
    return lines


async def test_what_was_committed_survives_a_kill_and_a_stop(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    server = await postgres.start(folder)
    assert await count(server.url) == 1
    os.killpg(server.child.pid, signal.SIGKILL)
    await server.child.ended()
    server = await postgres.start(folder)
    assert await count(server.url) == 2
    await server.stop()
    server = await postgres.start(folder)
    try:
        assert await count(server.url) == 3
        assert "database system was not properly shut down" not in server.child.last_words()
    finally:
        await server.stop()


async def test_a_stranger_with_the_old_servers_number_does_not_stop_a_start(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    server = await postgres.start(folder)
    note = (folder / "data" / "postmaster.pid").read_text().splitlines(keepends=True)
    await server.stop()
    pid_file = folder / "data" / "postmaster.pid"
    # PostgreSQL alone would believe this number, because its process lives and is of its own account or ours.
    pid_file.write_text("".join([f"{os.getppid()}\n", *note[1:]]))
    if account := accounts.unprivileged():
        os.chown(pid_file, account.uid, account.gid)
    server = await postgres.start(folder)
    await server.stop()


async def test_a_server_at_work_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await postgres.start(tmp_path / "postgres")
    monkeypatch.setattr(postgres, "UNUSED_WITHIN_S", 0.2)
    try:
        with pytest.raises(problems.StateError, match=r"another PostgreSQL works in .*process \d+"):
            await postgres.start(tmp_path / "postgres")
        assert await count(server.url) == 1
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("version", "message"),
    [("16\n", "was made by PostgreSQL 16 and this Penstock brings 18"), ("", "made by PostgreSQL ")],
)
async def test_data_of_another_version_is_left_alone(tmp_path: Path, version: str, message: str) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text(version)
    with pytest.raises(problems.StateError, match=message):
        await postgres.start(tmp_path / "postgres")


async def test_a_folder_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "postgres" / "data" / "thesis.tex").write_text("")
    with pytest.raises(problems.StateError, match="is not a PostgreSQL data folder"):
        await postgres.start(tmp_path / "postgres")
    assert (tmp_path / "postgres" / "data" / "thesis.tex").exists()


async def test_nothing_listens_on_the_network_and_nobody_else_may_enter(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    server = await postgres.start(folder)
    connection = await asyncpg.connect(server.url)
    try:
        assert await connection.fetchval("show listen_addresses") == ""
        assert await connection.fetchval("show synchronous_commit") == "on"
        assert await connection.fetchval("show fsync") == "on"
        for part in (folder, folder / "data", folder / "socket"):
            assert part.stat().st_mode & 0o077 == 0
        if os.geteuid() == 0:
            assert (folder / "data").stat().st_uid != 0
    finally:
        await connection.close()
        await server.stop()


async def test_a_state_folder_deep_down_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    database, cache = await postgres.start(deep / "postgres"), await valkey.start(deep / "valkey")
    try:
        assert await count(database.url) == 1
        async with redis.from_url(cache.url) as client:
            assert await client.ping()
    finally:
        await cache.stop()
        await database.stop()


async def test_valkey_keeps_nothing_and_drops_the_oldest_when_full(tmp_path: Path) -> None:
    server = await valkey.start(tmp_path / "valkey")
    try:
        async with redis.from_url(server.url) as client:
            assert (await client.config_get("save"))["save"] == ""
            assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "allkeys-lru"
            assert (await client.config_get("maxmemory"))["maxmemory"] == str(64 * 2**20)
            assert (await client.config_get("port"))["port"] == "0"
    finally:
        await server.stop()
    assert not list((tmp_path / "valkey").glob("*.rdb"))


async def test_valkey_starts_over_the_socket_of_a_killed_one(tmp_path: Path) -> None:
    server = await valkey.start(tmp_path / "valkey")
    server.child.kill()
    await server.child.ended()
    await (await valkey.start(tmp_path / "valkey")).stop()
