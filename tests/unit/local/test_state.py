from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.local import problems, state


def test_a_new_folder_is_made_with_everything_private(tmp_path: Path) -> None:
    held = state.take(tmp_path / "deep" / "home")
    try:
        assert {path.name for path in held.home.iterdir() if path.is_dir()} == set(state.FOLDERS)
        assert all(path.stat().st_mode & 0o077 == 0 for path in held.home.iterdir() if path.is_dir())
    finally:
        held.close()


def test_parents_keep_their_permissions(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    before = [(folder, folder.stat().st_mode) for folder in (tmp_path / "closed", *tmp_path.parents)]
    state.take(tmp_path / "closed" / "home").close()
    assert [(folder, folder.stat().st_mode) for folder, _ in before] == before


def test_a_second_taker_is_told_who_has_it(tmp_path: Path) -> None:
    held = state.take(tmp_path)
    with pytest.raises(problems.StateError, match=rf"process {os.getpid()}\) uses"):
        state.take(tmp_path)
    held.close()
    state.take(tmp_path).close()


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(problems.StateError, match="is a file: set PENSTOCK_HOME to a folder"):
        state.take(tmp_path / "home")


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(problems.StateError, match=r"holds thesis\.tex\): set PENSTOCK_HOME to an empty"):
        state.take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_a_newer_penstock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "layout").write_text("penstock state 9\n")
    with pytest.raises(problems.StateError, match="'penstock state 9', which this Penstock does not know"):
        state.take(tmp_path)


def test_too_little_disk_is_said_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 10 * 2**20))
    with pytest.raises(problems.StateError, match="has 10 MiB free and Penstock needs 256"):
        state.take(tmp_path)


@pytest.mark.parametrize("place", ["/proc/penstock", "/dev/null/penstock"])
def test_an_unusable_place_is_named(place: str) -> None:
    with pytest.raises(problems.StateError, match="set PENSTOCK_HOME"):
        state.take(Path(place))


def test_what_a_killed_run_left_is_forgotten(tmp_path: Path) -> None:
    state.take(tmp_path).close()
    (tmp_path / state.RUN_FILE).write_text("{}")
    (tmp_path / "metrics" / "gauge_livesum_1.db").write_text("")
    state.take(tmp_path).close()
    assert not (tmp_path / state.RUN_FILE).exists()
    assert not list((tmp_path / "metrics").iterdir())


def test_others_read_how_to_reach_what_runs_until_it_ends(tmp_path: Path) -> None:
    held = state.take(tmp_path)
    run = state.Run(os.getpid(), "http://127.0.0.1:1/v1", "postgresql://x", "unix:///y", "http://127.0.0.1:1")
    held.announce(run)
    assert state.running(tmp_path) == run
    assert (tmp_path / state.RUN_FILE).stat().st_mode & 0o077 == 0
    held.close()
    assert state.running(tmp_path) is None


def test_the_note_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    held = state.take(tmp_path)
    held.announce(
        state.Run(2**22 + 1, "http://127.0.0.1:1/v1", "postgresql://x", "unix:///y", "http://127.0.0.1:1")
    )
    assert state.running(tmp_path) is None
    held.close()


def test_only_the_live_figures_of_a_dead_process_go(tmp_path: Path) -> None:
    held = state.take(tmp_path)
    names = ("gauge_livesum_7.db", "gauge_livesum_17.db", "counter_7.db")
    for name in names:
        (held.home / "metrics" / name).write_text("")
    held.forget_process(7)
    assert {path.name for path in (held.home / "metrics").iterdir()} == {
        "gauge_livesum_17.db",
        "counter_7.db",
    }
    held.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_ends_in_one_sentence(small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(problems.StateError, match="free some space"):
        state.take(small_disk(4) / "home")
