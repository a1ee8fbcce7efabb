"""The routing policies by the names that settings give them."""

from __future__ import annotations

from penstock.routing import affinity, least_load, power_of_two
from penstock.routing.policy import Policy
from penstock_engines.pool_settings import PolicyName

POLICIES: dict[PolicyName, Policy] = {
    PolicyName.LEAST_LOAD: least_load.choose,
    PolicyName.POWER_OF_TWO: power_of_two.choose,
    PolicyName.PREFIX_AFFINITY: affinity.by_prefix,
    PolicyName.SESSION_AFFINITY: affinity.by_session,
}
