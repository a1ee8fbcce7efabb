"""Files are kept whole or not at all, and what a kill leaves is found."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters import store
from penstock.adapters.errors import NoRoom
from penstock.adapters.store import CONFIG, WEIGHTS, Store


def left(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.name != ".incoming")


def test_what_is_kept_lies_under_its_digest_and_nothing_else_is_left(tmp_path: Path) -> None:
    files = Store(tmp_path)
    with files.receive() as incoming:
        incoming.write(b"wei")
        incoming.write(b"ghts")
        incoming.close()
        digest = files.keep(incoming, b"{}")
    assert left(tmp_path) == [digest, f"{digest}/{CONFIG}", f"{digest}/{WEIGHTS}"]
    assert (tmp_path / digest / WEIGHTS).read_bytes() == b"weights"


def test_the_same_content_twice_is_kept_once(tmp_path: Path) -> None:
    files = Store(tmp_path)
    digests = set()
    for _ in range(2):
        with files.receive() as incoming:
            incoming.write(b"weights")
            incoming.close()
            digests.add(files.keep(incoming, b"{}"))
    assert len(digests) == 1
    assert len(left(tmp_path)) == 3


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def upload() -> None:
        with Store(tmp_path).receive() as incoming:
            incoming.write(b"half")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        upload()
    assert left(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with Store(tmp_path).receive() as incoming:
        incoming.write(b"weights")
        with pytest.raises(NoRoom):
            incoming.close()
    assert left(tmp_path) == []


def test_the_last_of_the_disk_is_the_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(store, "ROOM_BYTES", free)
    with Store(tmp_path).receive() as incoming, pytest.raises(NoRoom):
        incoming.write(b"weights")


def test_what_a_killed_process_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    files = Store(tmp_path)
    with files.receive() as running:
        dead = tmp_path / ".incoming" / "dead"
        dead.mkdir()
        (dead / WEIGHTS).write_bytes(b"half")
        (tmp_path / ".incoming" / "dead.lock").touch()
        assert files.tidy() == 1
        running.write(b"weights")
        running.close()
        assert files.keep(running, b"{}") in left(tmp_path)
    assert not dead.exists()
    assert not list((tmp_path / ".incoming").iterdir())


def test_what_is_removed_is_gone_and_removing_it_again_is_nothing(tmp_path: Path) -> None:
    files: Any = Store(tmp_path)
    with files.receive() as incoming:
        incoming.close()
        digest = files.keep(incoming, b"{}")
    files.remove(digest)
    files.remove(digest)
    assert left(tmp_path) == []
