from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing import frames, record
from penstock_billing.errors import JournalUnknownVersion, JournalUnreadable
from penstock_billing.frames import Tail
from penstock_billing.testing import usage_record

BOOT = bytes(range(16))
# Their last byte is not 0: one that is would be there again behind a cut, in the zeros of reserved room.
BODIES = [record.encode(usage_record(output_tokens=n, pool_version=1)) for n in range(5)]
WHOLE = frames.header(BOOT, 7) + b"".join(frames.frame(body) for body in BODIES)
STARTS = [
    frames.HEADER_BYTES + sum(frames.FRAME.size + len(b) for b in BODIES[:n]) for n in range(len(BODIES) + 1)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.journal"


def read(path: Path, content: bytes) -> tuple[list[bytes], Tail]:
    path.write_bytes(content)
    found = list(frames.frames(path))
    return [frame.body for frame in found], frames.judge(path, found[-1].end if found else 0)


def test_whole_frames_come_back_with_their_places(path: Path) -> None:
    path.write_bytes(WHOLE)
    found = list(frames.frames(path))
    assert [frame.body for frame in found] == BODIES
    assert [frame.position for frame in found] == STARTS[:-1]
    assert found[-1].end == len(WHOLE)
    assert [frame.body for frame in frames.frames(path, STARTS[3])] == BODIES[3:]
    assert [frame.body for frame in frames.frames(path, 0, until=STARTS[2])] == BODIES[:2]


def test_a_file_larger_than_one_reading_is_read_to_its_end(path: Path) -> None:
    many = [bytes([n % 251]) * 5000 for n in range(200)]
    path.write_bytes(frames.header(BOOT, 0) + b"".join(frames.frame(body) for body in many))
    assert [frame.body for frame in frames.frames(path)] == many


def test_a_last_write_cut_anywhere_is_torn_and_costs_only_itself(path: Path) -> None:
    for cut in range(STARTS[4] + 1, len(WHOLE)):
        assert read(path, WHOLE[:cut]) == (BODIES[:4], Tail.TORN)
        assert read(path, WHOLE[:cut] + bytes(5000)) == (BODIES[:4], Tail.TORN)


def test_garbage_behind_the_last_frame_is_a_torn_tail(path: Path) -> None:
    assert read(path, WHOLE + b"\x28\0\0\0garbage") == (BODIES, Tail.TORN)


def test_reserved_room_behind_the_last_frame_is_a_clean_end(path: Path) -> None:
    assert read(path, WHOLE + bytes(10_000)) == (BODIES, Tail.CLEAN)
    assert read(path, WHOLE) == (BODIES, Tail.CLEAN)


def test_any_flipped_bit_inside_is_seen_as_damage_and_nothing_behind_it_is_read(path: Path) -> None:
    for place in range(STARTS[2], STARTS[3]):
        for bit in range(8):
            damaged = bytearray(WHOLE)
            damaged[place] ^= 1 << bit
            assert read(path, bytes(damaged)) == (BODIES[:2], Tail.CORRUPT), (place, bit)


@given(st.integers(frames.HEADER_BYTES, len(WHOLE) - 1), st.binary(max_size=400))
def test_overwriting_a_file_never_makes_up_a_record(
    tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.journal"
    bodies, _ = read(path, WHOLE[:place] + junk + WHOLE[place + len(junk) :])
    untouched = sum(start <= place for start in STARTS[1:])
    assert bodies[:untouched] == BODIES[:untouched]
    assert all(body in BODIES for body in bodies)


def test_the_header_names_the_journal(path: Path) -> None:
    path.write_bytes(WHOLE)
    assert frames.read_name(path) == frames.journal_name(BOOT, 7) == f"{BOOT.hex()}-0007"


def test_a_file_that_lost_everything_has_no_name(path: Path) -> None:
    for content in (b"", bytes(4096)):
        path.write_bytes(content)
        assert frames.read_name(path) is None


def test_another_releases_format_is_told_from_damage(path: Path) -> None:
    newer = bytearray(WHOLE)
    newer[8] = frames.VERSION + 1
    path.write_bytes(newer)
    with pytest.raises(JournalUnknownVersion, match=f"format {frames.VERSION + 1}"):
        frames.read_name(path)


@pytest.mark.parametrize(
    "content", [b"PENST", b"something else entirely, long enough for a header", WHOLE[:20]]
)
def test_what_is_no_journal_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalUnreadable):
        frames.read_name(path)


def test_a_damaged_header_is_refused(path: Path) -> None:
    for place in range(12, frames.HEADER_BYTES):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalUnreadable, match="damaged header"):
            frames.read_name(path)


@pytest.mark.parametrize("size", [0, frames.BODY_BYTES_MAX + 1])
def test_a_frame_has_a_bounded_body(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        frames.frame(bytes(size))
