"""Tasks are over when `end` returns, also those that lost their first cancellation."""

from __future__ import annotations

import asyncio

from penstock_base import tasks


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await tasks.end(task)
    assert task.cancelled()
    assert lost == 2


async def test_what_tasks_raise_while_they_end_is_theirs() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("at the end")

    async def is_done() -> int:
        return 1

    failing, done = asyncio.create_task(fails()), asyncio.create_task(is_done())
    await asyncio.sleep(0)
    await tasks.end(failing, done)
    assert done.result() == 1
    assert isinstance(failing.exception(), ValueError)


async def test_nothing_to_end_is_no_error() -> None:
    await tasks.end()
