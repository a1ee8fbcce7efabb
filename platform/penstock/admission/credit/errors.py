"""Why a request is not paid for, one class per decision a caller can take.

CreditError
├── InsufficientCredit   the wallet cannot pay for it: add credit, or ask for less
├── CreditHeld           it could, but for what requests that run now may cost: try again shortly
├── DebtLimit            a postpaid wallet owes as much as it may: pay, or have the limit raised
└── CreditUnavailable    whether there is credit cannot be asked right now: try again shortly
"""

from __future__ import annotations

from penstock_base import money


class CreditError(Exception):
    """Root of this room's errors; nothing was executed and nothing is billed."""


class InsufficientCredit(CreditError):
    """More is needed than the wallet has; amounts in nano-dollars."""

    def __init__(self, needed_nano_usd: int, available_nano_usd: int) -> None:
        """`available_nano_usd` is all there is, held for running requests or not."""
        super().__init__(
            f"this request may cost {usd(needed_nano_usd)} US dollars, and {usd(max(0, available_nano_usd))} "
            "of prepaid credit are available; add credit, or ask for a shorter answer (max_tokens)"
        )
        self.needed_nano_usd = needed_nano_usd
        self.available_nano_usd = max(0, available_nano_usd)


class CreditHeld(CreditError):
    """The wallet has enough, and holds it for requests that run: soon it is known what they cost."""

    retry_after_s = 1

    def __init__(self, needed_nano_usd: int, available_nano_usd: int, held_nano_usd: int) -> None:
        super().__init__(
            f"this request may cost {usd(needed_nano_usd)} US dollars; {usd(max(0, available_nano_usd))} of "
            f"prepaid credit are free, and up to {usd(held_nano_usd)} more are held for requests that are "
            "running; nothing was billed, try again shortly"
        )


class DebtLimit(CreditError):
    """As much is owed as may be owed; amounts in nano-dollars."""

    def __init__(self, owed_nano_usd: int, owed_max_nano_usd: int) -> None:
        super().__init__(
            f"{usd(owed_nano_usd)} US dollars are owed, and the limit is {usd(owed_max_nano_usd)}: "
            "pay what is owed, or have the limit raised"
        )
        self.owed_nano_usd = owed_nano_usd
        self.owed_max_nano_usd = owed_max_nano_usd


class CreditUnavailable(CreditError):
    """What this gateway leased is used up, or was never leased, and the database does not answer."""

    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__(
            "whether there is credit for this request cannot be found out right now; "
            "nothing was billed, try again shortly"
        )


def usd(nano_usd: int) -> str:
    """Write dollars without needless zeros, and with cents."""
    whole, _, fraction = money.nano_to_usd(nano_usd).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
