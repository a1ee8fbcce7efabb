"""What a request holds of a purse, and how a stream's hold grows, runs out and is let go."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.keyring import Principal
from penstock.admission.credit.charge import MARGIN_TOKENS, STEP_TOKENS, Charge
from penstock.admission.credit.purse import Purse
from penstock.admission.credit.wallets import Payer, Wallets
from penstock.admission.funds import Ask
from penstock_billing import rating
from penstock_billing.leases import Lent, Terms, Wallet
from penstock_billing.prices import PriceVersion
from penstock_billing.record import Funding

PRICE = PriceVersion(1, "m", 100_000, 50_000, 400_000, datetime(2026, 1, 1, tzinfo=UTC))
PAYER = Payer(Wallet(1), Funding.PREPAID, False, None)
OUTPUT = 400
STEP = STEP_TOKENS * OUTPUT


def purse(granted: int, *, answers: bool = False) -> Purse:
    """A purse with so much; `answers`: the lender is there, and an answer of it is under way."""
    made = Purse(Wallet(1), lambda _: answers)
    made.take_over(Lent(1, granted, 0, 0, 0), time.monotonic())
    made.low = 0
    return made


def charge(of: Purse, held: int, *, most: int = 10_000, choices: int = 1) -> Charge:
    assert of.hold(held)
    return Charge(PAYER, of, PRICE, choices=choices, output_tokens_max=most, held_nano_usd=held, elastic=True)


def test_a_stream_holds_a_step_ahead_of_what_it_has_used() -> None:
    of = purse(10 * STEP)
    one = charge(of, STEP)
    assert one.go_on(0, 0, 100)
    assert of.held == STEP
    assert one.go_on(0, 0, 200)
    assert of.held == 200 * OUTPUT + STEP


def test_a_stream_is_ended_when_nothing_is_left_to_hold() -> None:
    of = purse(STEP)
    one = charge(of, STEP)
    assert one.go_on(0, 0, STEP_TOKENS - MARGIN_TOKENS)
    assert not one.go_on(0, 0, STEP_TOKENS - MARGIN_TOKENS + 1)
    one.settle(STEP - 5)
    assert (of.held, of.spent, of.room, of.users) == (0, STEP - 5, 5, 0)


def test_while_the_lender_is_asked_a_stream_goes_on_for_a_step_at_most() -> None:
    of = purse(STEP, answers=True)
    one = charge(of, STEP)
    assert one.go_on(0, 0, 2 * STEP_TOKENS - 1)
    assert of.wanting == STEP
    assert not one.go_on(0, 0, 2 * STEP_TOKENS)


def test_a_stream_holds_no_more_than_it_can_still_use() -> None:
    of = purse(100 * STEP)
    one = charge(of, STEP, most=300)
    assert one.go_on(0, 0, 200)
    assert of.held == 300 * OUTPUT
    assert one.go_on(0, 0, 300)
    of = purse(STEP)
    assert charge(of, STEP, most=STEP_TOKENS).go_on(0, 0, STEP_TOKENS - 1)


def test_what_an_engine_may_be_making_unseen_is_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    of = purse(10 * STEP)
    one = charge(of, STEP)
    assert one.go_on(0, 0, 10)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 5)
    assert one.go_on(0, 0, 10)
    assert of.held >= 510 * OUTPUT + STEP
    poor = charge(purse(STEP), STEP)
    assert poor.go_on(0, 0, 10)
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 10)
    assert not poor.go_on(0, 0, 10)


def test_closing_lets_go_once_and_settling_first_counts() -> None:
    of = purse(10 * STEP)
    one, other = charge(of, STEP), charge(of, STEP)
    one.settle(7)
    one.close()
    other.close()
    other.close()
    assert (of.held, of.spent, of.users) == (0, 7, 0)


def test_a_purse_never_holds_more_than_it_was_lent() -> None:
    of = purse(100)
    assert of.hold(60)
    assert not of.hold(41)
    assert of.hold_some(50, 41) == -1
    assert of.hold_some(50, 40) == 40
    assert of.room == 0
    assert of.hold(0)
    of.settle(60, 70)
    assert of.room == -10
    assert of.hold_some(5, 1) == -1


tokens = st.integers(0, 100_000)
pico = st.integers(0, 10**9)


@given(tokens, tokens, st.integers(1, 8), st.booleans(), pico, pico, pico, st.data())
def test_what_is_held_covers_every_cost_within_its_bounds(
    input_max: int,
    output_max: int,
    choices: int,
    streamed: bool,
    one: int,
    two: int,
    three: int,
    data: st.DataObject,
) -> None:
    price = PriceVersion(1, "m", one, two, three, datetime(2026, 1, 1, tzinfo=UTC))
    ask = Ask(Principal(1, 1, "k"), price, input_max, output_max, choices, streamed)
    held = data.draw(st.integers(ask.cost_nano_usd(0), ask.worst_nano_usd()))
    allowed = ask.output_tokens_for(held)
    assert 0 <= allowed <= output_max
    used = data.draw(st.integers(0, input_max))
    cost = rating.cost_nano_usd(
        price,
        input_tokens=used,
        cached_tokens=data.draw(st.integers(0, used)),
        output_tokens=data.draw(st.integers(0, allowed * choices)),
    )
    assert cost <= held
    assert ask.output_tokens_for(ask.worst_nano_usd()) == output_max


def test_a_projects_wallet_comes_before_its_organisations() -> None:
    wallets = Wallets()
    wallets.learn(Terms(Wallet(1, 0), Funding.PREPAID, True, None, 0))
    wallets.learn(Terms(Wallet(1, 5), Funding.POSTPAID, False, 9, 4))
    ours = wallets.of(Principal(1, 5, "k"))
    assert (ours.wallet, ours.funding) == (Wallet(1, 5), Funding.POSTPAID)
    assert ours.tab is not None
    assert (ours.tab.owed_nano_usd, ours.tab.max_nano_usd) == (4, 9)
    theirs = wallets.of(Principal(1, 6, "k"))
    assert (theirs.wallet, theirs.funding, theirs.strict) == (Wallet(1, 0), Funding.PREPAID, True)
    nobodys = wallets.of(Principal(2, 5, "k"))
    assert (nobodys.wallet, nobodys.funding, nobodys.tab) == (Wallet(2, 0), Funding.POSTPAID, None)
