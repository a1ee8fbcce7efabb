"""What can go wrong in billing, one class per decision a caller can take.

BillingError
├── UsageRefused      the numbers cannot be a usage: a defect upstream, nothing was charged
├── UsageQuestionRefused  a question about usage that cannot be answered: ask another
├── PriceError        a price that is not accepted: nothing was changed, fix what `field` names
├── LedgerRefused     not a transaction: its entries are wrong, nothing was booked
│   ├── ReferenceReused   another transaction bears this reference: a repeat must be the same
│   └── AmountRefused     more than there is to give back, refund or take: ask for what is left
├── UnknownTransaction no such ledger transaction, or none of this organisation's
├── UnknownRequest    no such request of this organisation's
├── SearchTookTooLong too many requests to look through: ask for less time
├── BudgetRefused     not a budget: nothing was changed, fix what `field` names
├── UnknownPromotion  the organisation was given no such promotion
├── UnknownBudget     the organisation has no such budget in force
├── IntervalRefused   not an interval, or another is open: nothing was recorded
├── LeaseRefused      credit may not be lent to this process: it counts as gone
├── ArchiveError      old events were not filed or brought back; nothing was changed
│   ├── ArchiveUnavailable  this installation cannot write or read the files: install penstock[archive]
│   ├── ArchiveRefused      not that day: the message says why
│   └── ArchiveDamaged      a file is not what was written: bring back a copy of it
├── JournalError      the record is NOT in the journal: do not release the response's end
│   ├── JournalFull       no room on the disk: stop admitting, it heals when there is room again
│   └── JournalBroken     the disk failed or the journal was closed: stop admitting, restart elsewhere
└── JournalUnreadable a file that cannot be read as a journal: set it aside, tell a person
"""

from __future__ import annotations


class BillingError(Exception):
    """Root of this room's errors."""


class UsageRefused(BillingError):
    """Token counts that cannot be true, such as more cached than input tokens; refused, never clamped."""


class UsageQuestionRefused(BillingError):
    """A window that is not whole minutes or ends before it begins, or an answer beyond all bounds."""


class PriceError(BillingError):
    """A price that is not accepted; nothing was changed. `field` names what is wrong, where one thing is."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class LedgerRefused(BillingError):
    """Entries that do not sum to zero, or move nothing; nothing was booked."""


class ReferenceReused(LedgerRefused):
    """The reference is taken by a transaction with other contents; nothing was booked."""


class BudgetRefused(BillingError):
    """What is asked for is no budget; `field` is what to change."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownPromotion(BillingError):
    """The organisation was given no promotion of this number."""


class UnknownBudget(BillingError):
    """The organisation has no budget of this number in force."""


class IntervalRefused(BillingError):
    """What is said of a running subject cannot be, or contradicts what was said; nothing was recorded."""


class LeaseRefused(BillingError):
    """The process counts as gone, so nothing is lent to it; it must not go on admitting prepaid requests."""


class AmountRefused(LedgerRefused):
    """More than may be moved; the message says how much may. Nothing was booked."""


class UnknownTransaction(BillingError):
    """No ledger transaction has this number, as far as whoever asks may see."""


class UnknownRequest(BillingError):
    """The organisation has no such request in the database."""


class SearchTookTooLong(BillingError):
    """A search among requests that was stopped; the same question about less time may be answered."""


class ArchiveError(BillingError):
    """Old events were not filed or brought back; nothing was changed."""


class ArchiveUnavailable(ArchiveError):
    """The library for Parquet files is not installed."""


class ArchiveRefused(ArchiveError):
    """The day is too young, has no events, or is not in a file."""


class ArchiveDamaged(ArchiveError):
    """A file is missing or not what was written: what is in Postgres stays as it is."""


class JournalError(BillingError):
    """The record was not written; whoever appended must not acknowledge the response."""


class JournalFull(JournalError):
    """The file system has no room for the record (or a quota or size limit says so)."""


class JournalBroken(JournalError):
    """The journal's file failed, or was closed; this journal accepts no record any more."""


class JournalUnreadable(BillingError):
    """A file is no journal of a format this release reads."""


class JournalUnknownVersion(JournalUnreadable):
    """A journal of another release's format."""
