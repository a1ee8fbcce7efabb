from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.local.first_run import ROOMS
from penstock_base import migrations
from penstock_base.migrations import MigrationError


@pytest.mark.parametrize("room", ROOMS)
def test_every_migration_of_a_room_has_a_number_of_its_own(room: str) -> None:
    found = migrations.read(room, ROOMS[room])
    assert [one.number for one in found] == sorted({one.number for one in found})
    assert found[0].number == 1


def test_a_number_that_is_used_twice_is_refused_with_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a_room_of_tests" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for name in ("0001_first.sql", "0001_second.sql"):
        (folder / name).write_text("select 1")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(MigrationError, match=r"0001_second\.sql and first bear the same number"):
            migrations.read("test", "a_room_of_tests")
    finally:
        sys.modules.pop("a_room_of_tests", None)
