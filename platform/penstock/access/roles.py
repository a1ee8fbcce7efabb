"""What a member may do in an organisation; each role may all that the next may."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a person is in an organisation."""

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
