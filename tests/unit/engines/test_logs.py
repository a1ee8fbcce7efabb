from __future__ import annotations

import os
from pathlib import Path

from penstock_engines.logs import EngineLog


def test_a_small_log_stays_and_a_missing_one_is_no_trouble(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "engine.log", bytes_max=100)
    assert not log.rotate_if_large()
    log.path.write_text("x" * 100)
    assert not log.rotate_if_large()


def test_the_writer_goes_on_in_the_same_file_and_old_parts_are_kept_to_a_number(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "engine.log", bytes_max=10, files_kept=2)
    descriptor = os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(4):
        os.write(descriptor, b"part %d of the log\n" % number)
        assert log.rotate_if_large()
    os.write(descriptor, b"now\n")
    os.close(descriptor)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "engine.log": "now\n",
        "engine.log.1": "part 3 of the log\n",
        "engine.log.2": "part 2 of the log\n",
    }


FAILED_START = """
(Worker pid=1) ERROR 11-21 01:37:14 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker pid=1) ERROR 11-21 01:37:14 [multiproc_executor.py:953] ValueError: invalid literal for int(): ''
(EngineCore pid=2) ERROR 11-21 01:37:14 [core.py:1510] Exception: See stack trace for root cause.
RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_root_cause_is_told_and_not_what_points_at_it(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "engine.log")
    assert log.last_error() is None
    log.path.write_text("INFO all is well\n")
    assert log.last_error() is None
    log.path.write_text(FAILED_START)
    assert log.last_error() == "ValueError: invalid literal for int(): ''"
