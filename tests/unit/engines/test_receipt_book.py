"""The book behind the receipts, without an engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from penstock_engines.receipts import KEPT_MAX, KEPT_S, Book


@dataclass
class Tokens:
    made: int = 0

    def num_output_tokens(self) -> int:
        return self.made


@dataclass
class State:
    """What the book reads of vLLM's RequestState."""

    request_id: str
    prompt_len: int = 10
    request_index: int = 0
    num_cached_tokens: int = 0
    is_prefilling: bool = False
    parent_req: Any = None
    detokenizer: Any = field(default_factory=Tokens)


@dataclass
class Parent:
    request_id: str


async def read(
    book: Book, request_id: str = "a", wait_s: float = 0.0
) -> tuple[int, int, int, bool, bool] | None:
    receipt = await book.read(request_id, wait_s)
    if receipt is None:
        return None
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "finished", "aborted")
    prompt, cached, completion, finished, aborted = (receipt[name] for name in names)
    return int(prompt), int(cached), int(completion), bool(finished), bool(aborted)


async def test_a_prompt_that_was_not_computed_yet_costs_nothing() -> None:
    book, state = Book(), State("a-1", is_prefilling=True)
    book.begin("a")
    book.opened("a", state)
    assert await read(book) == (0, 0, 0, False, False)
    state.is_prefilling = False
    state.detokenizer.made = 1
    assert await read(book) == (10, 0, 1, False, False)


async def test_choices_add_up_their_prompt_counts_once_and_the_first_one_s_cache() -> None:
    book, parent = Book(), Parent("p")
    book.begin("a")
    children = [
        State(f"{n}_p", request_index=n, parent_req=parent, num_cached_tokens=8 * n) for n in range(3)
    ]
    for child in reversed(children):
        child.detokenizer.made = 5
        book.opened("a", child)
    assert await read(book) == (10, 0, 15, False, False)


async def test_several_prompts_add_up() -> None:
    book = Book()
    book.begin("a")
    for number in range(2):
        book.opened("a", State(f"a-{number}", prompt_len=3 + number, num_cached_tokens=1))
    assert await read(book) == (7, 2, 0, False, False)


async def test_it_is_final_only_when_the_exchange_and_all_parts_are_over() -> None:
    book = Book()
    book.begin("a")
    for name in ("x", "y"):
        book.opened("a", State(name))
    book.closed("x", aborted=False)
    book.end("a")
    assert await read(book) == (20, 0, 0, False, False)
    book.closed("y", aborted=True)
    assert await read(book) == (20, 0, 0, True, True)


async def test_a_reader_waits_until_it_is_final() -> None:
    book, state = Book(), State("x")
    book.begin("a")
    book.opened("a", state)
    waiting = asyncio.create_task(read(book, wait_s=5))
    await asyncio.sleep(0)
    state.detokenizer.made = 4
    book.closed("x", aborted=True)
    book.end("a")
    assert await asyncio.wait_for(waiting, 1) == (10, 0, 4, True, True)


async def test_no_prompt_is_kept_after_its_request() -> None:
    book, state = Book(), State("x")
    book.begin("a")
    book.opened("a", state)
    book.closed("x", aborted=False)
    book.end("a")
    assert book._entries["a"].parts[0].live is None


async def test_old_receipts_are_forgotten_by_age_and_by_number() -> None:
    now_s = 0.0
    book = Book(clock=lambda: now_s)

    def one(request_id: str) -> None:
        book.begin(request_id)
        book.end(request_id)

    one("old")
    now_s = KEPT_S + 1
    one("a")
    assert await read(book, "old") is None
    assert await read(book, "a") == (0, 0, 0, True, False)
    for number in range(KEPT_MAX):
        one(f"n{number}")
    assert await read(book, "a") is None
    assert len(book._entries) == KEPT_MAX


async def test_a_request_in_hand_is_never_forgotten() -> None:
    now_s = 0.0
    book = Book(clock=lambda: now_s)
    book.begin("a")
    book.opened("a", State("x"))
    now_s = 10 * KEPT_S
    for number in range(KEPT_MAX + 10):
        book.begin(f"n{number}")
        book.end(f"n{number}")
    assert await read(book, "a") == (10, 0, 0, False, False)
