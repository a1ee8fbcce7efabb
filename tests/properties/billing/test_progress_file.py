"""Whatever a process did when it died, and whoever died adopting what it left: each stream counts once."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_billing import boots, frames, progress, record
from penstock_billing.journal import Journal
from penstock_billing.progress import Progress
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import usage_record

STREAMS = [bytes([number]) * 16 for number in range(1, 7)]

Act = tuple[str, int, int]
BEGUN: list[Act] = [(kind, number, 1) for kind in ("begin", "note") for number in range(3)]
acts = st.lists(
    st.tuples(
        st.sampled_from(["note", "note", "note", "end", "begin"]), st.integers(0, 5), st.integers(0, 300)
    ),
    max_size=25,
)


class Killed(BaseException):
    """The process is gone at this very place."""


class Kill:
    """Lets so many calls pass, then does a part of one, or all of it, and kills the process."""

    def __init__(self, after: int, share: float) -> None:
        self.left = after
        self.share = share

    @contextlib.contextmanager
    def in_writes(self) -> Iterator[None]:
        real = os.pwrite

        def pwrite(file: int, data: bytes, offset: int) -> int:
            if self.left == 0:
                real(file, data[: round(len(data) * self.share)], offset)
                raise Killed
            self.left -= 1
            return real(file, data, offset)

        with mock.patch.object(os, "pwrite", pwrite):
            yield

    @contextlib.contextmanager
    def in_steps(self) -> Iterator[None]:
        """Of an adoption: what it forces to the disk, renames and deletes."""

        def cut(real: Any) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                if self.left == 0:
                    if self.share > 0.5:
                        real(*arguments, **named)
                    raise Killed
                self.left -= 1
                return real(*arguments, **named)

            return call

        with (
            mock.patch.object(os, "fsync", cut(os.fsync)),
            mock.patch.object(Path, "rename", cut(Path.rename)),
            mock.patch.object(Path, "unlink", cut(Path.unlink)),
        ):
            yield


class World:
    """A process with streams, and what of them must be found after its death."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder, reserve_bytes=4096)
        self.progress = Progress(folder, self.journal.boot_id)
        self.running: dict[bytes, UsageRecord | None] = {}
        self.ended: dict[bytes, UsageRecord] = {}
        self.writing: UsageRecord | None = None

    def do(self, act: Act) -> None:
        kind, number, tokens = act
        stream = STREAMS[number]
        if kind == "begin":
            if stream not in self.running and stream not in self.ended:
                self.running[stream] = None
                self.progress.begin(stream)
        elif kind == "note":
            noted = usage_record(event_id=stream, output_tokens=tokens, outcome=Outcome.RECOVERED)
            if stream in self.running:
                self.writing = noted
            self.progress.note(noted)
            if stream in self.running:
                self.running[stream] = noted
        elif stream in self.running:
            final = usage_record(event_id=stream, output_tokens=tokens, outcome=Outcome.DONE)
            self.writing = final
            self.journal.append(final)
            del self.running[stream]
            self.ended[stream] = final
            self.writing = None
            self.progress.end(stream)
        self.writing = None

    def die(self) -> None:
        """Leave everything as it is; the kernel gives the locks back."""
        os.close(self.journal._file)
        self.journal._file = -1
        os.close(self.progress._file)
        self.progress._file = -1


def found(folder: Path) -> list[UsageRecord]:
    """What would be shipped."""
    return [
        record.decode(frame.body)
        for path in sorted(folder.glob("*.journal"))
        for frame in frames.frames(path)
    ]


@settings(deadline=None, max_examples=300)
@given(
    acts=acts,
    kill=st.builds(Kill, st.integers(0, 30), st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0])),
    adopters=st.lists(st.builds(Kill, st.integers(0, 6), st.sampled_from([0.0, 1.0])), max_size=4),
)
def test_each_stream_counts_once_as_it_was_last_known(
    acts: list[Act], kill: Kill, adopters: list[Kill]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = World(folder)
        with contextlib.suppress(Killed), kill.in_writes():
            for act in [*BEGUN, *acts]:
                world.do(act)
        world.die()
        left = {each.event_id for path in folder.glob("*.progress") for each in progress.read(path)}
        # Cleared at once: only the one that was being ended may have both a note and a final record.
        assert len(left - world.running.keys()) <= 1

        for adopter in adopters:
            with contextlib.suppress(Killed), adopter.in_steps():
                adopt(folder)
        adopt(folder)

        counted = {each.event_id: each for each in found(folder)}
        assert len(counted) == len(found(folder))
        cut = world.writing
        for stream, final in world.ended.items():
            assert counted.pop(stream) == final
        for stream, noted in world.running.items():
            got = counted.pop(stream, None)
            if cut is None or cut.event_id != stream:
                assert got == noted
            elif cut.outcome is Outcome.DONE:
                # Its end was being written: it is there whole, or the note stands.
                assert got in (cut, noted)
            else:
                assert got in (cut, noted, None)
        assert counted == {}
        assert boots.complete(folder, world.journal.boot_id.hex(), folder.glob("*.journal"))
        assert not list(folder.glob("*.progress"))


def adopt(folder: Path) -> None:
    """As the shipper does it."""
    for boot, remains in boots.look(folder).items():
        if remains.progress is not None:
            with boots.locked(remains.progress) as dead:
                if dead and boots.gone(folder, boot):
                    progress.recover(remains.progress)
