from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock_engines import receipt_log
from penstock_engines.receipt_log import Line, ReceiptLog


def line(number: int, **changes: int) -> Line:
    counts = {"all_input_tokens": 10, "all_cached_tokens": 1, "all_output_tokens": number} | changes
    return Line(f"r{number}", 1000 + number, 10, 1, number, 1, False, **counts)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


def test_what_was_added_is_read_again_in_order(socket: Path) -> None:
    log = ReceiptLog(socket)
    for number in range(5):
        log.add(line(number))
    (boot,) = receipt_log.boots(socket)
    assert (boot.boot, boot.ended, boot.killed) == (log.boot, False, False)
    assert list(boot.lines()) == [line(number) for number in range(5)]
    assert list(boot.lines(1003)) == [line(3), line(4)]
    log.close()
    (boot,) = receipt_log.boots(socket)
    assert (boot.ended, boot.killed) == (True, False)
    assert [one.request_id for one in boot.lines()] == ["r0", "r1", "r2", "r3", "r4"]


def test_a_killed_engine_leaves_whole_lines_only(socket: Path) -> None:
    log = ReceiptLog(socket)
    log.add(line(1))
    (boot,) = receipt_log.boots(socket)
    with boot.paths[0].open("ab") as file:
        file.write(b'["r2",1002,10')
    (boot,) = receipt_log.boots(socket)
    assert [one.request_id for one in boot.lines()] == ["r1"]
    assert (boot.ended, boot.killed) == (False, False)
    os.close(log._file)  # as the kernel does
    (boot,) = receipt_log.boots(socket)
    assert (boot.ended, boot.killed) == (False, True)


def test_parts_go_on_where_the_one_before_ended(socket: Path) -> None:
    log = ReceiptLog(socket, part_bytes=200)
    for number in range(10):
        log.add(line(number))
    (boot,) = receipt_log.boots(socket)
    assert len(boot.paths) > 2
    assert len(list(boot.lines())) == log.requests == 10
    assert boot.sums(10) == (100, 10, sum(range(10)))
    assert boot.sums(4) == (40, 4, 0 + 1 + 2 + 3)
    assert boot.sums(0) == (0, 0, 0)
    assert boot.sums(11) is None
    boot.paths[0].unlink()
    (boot,) = receipt_log.boots(socket)
    assert boot.sums(10) == (100, 10, sum(range(10)))
    assert boot.sums(0) is None


def test_each_start_of_an_engine_has_files_of_its_own(socket: Path) -> None:
    first, second = ReceiptLog(socket), ReceiptLog(socket)
    ReceiptLog(socket.with_name("other.sock")).add(line(3))
    first.add(line(1))
    second.add(line(2))
    found = {boot.boot: [one.request_id for one in boot.lines()] for boot in receipt_log.boots(socket)}
    assert found == {first.boot: ["r1"], second.boot: ["r2"]}


def test_old_files_go_but_never_that_of_an_engine_that_lives(socket: Path) -> None:
    dead, living = ReceiptLog(socket), ReceiptLog(socket)
    dead.close()
    for boot in receipt_log.boots(socket):
        os.utime(boot.paths[0], (1, 1))
    assert receipt_log.prune(socket.parent) == 1
    (left,) = receipt_log.boots(socket)
    assert left.boot == living.boot


def test_a_disk_that_refuses_ends_the_log_and_nothing_else(socket: Path) -> None:
    log = ReceiptLog(socket)
    log.add(line(1))
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), log._file)
    log.add(line(2))
    log.add(line(3))
    log.close()
    (boot,) = receipt_log.boots(socket)
    assert [one.request_id for one in boot.lines()] == ["r1"]
    assert not boot.ended


def test_a_folder_that_is_not_there_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    log = ReceiptLog(tmp_path / "nowhere" / "engine.sock")
    log.add(line(1))
    log.close()
