"""What a member or a key may do in an organisation; each role may all that the next may."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a person is in an organisation, and what a key may do beside calling models."""

    OWNER = "owner"
    """Everything: members, keys with every power, budgets and the bill as well."""
    DEVELOPER = "developer"
    """Makes and changes keys, endpoints and adapters, and tries models; sees what they cost."""
    VIEWER = "viewer"
    """Looks at everything, changes nothing."""

    def may(self, needed: Role) -> bool:
        """Whether this role includes another."""
        order = (Role.VIEWER, Role.DEVELOPER, Role.OWNER)
        return order.index(self) >= order.index(needed)


class RoleTooLow(Exception):
    """Whoever asks is known, and may not do this; the message says who could."""

    def __init__(self, has: Role, needed: Role, what: str) -> None:
        super().__init__(f"{what} takes the role {needed.value}, and this is the role {has.value}")
        self.has = has
        self.needed = needed


def check(has: Role, needed: Role, what: str) -> None:
    """Raise RoleTooLow unless the role is enough for `what`, which begins the sentence."""
    if not has.may(needed):
        raise RoleTooLow(has, needed, what)
