"""What the person who runs the installation sees and changes: every page asks for an operator."""

from penstock.portal.pages.operator import (
    hardware,
    margins,
    organisations,
    people,
    pools,
    prices,
    reconciliation,
)

PAGES = (organisations, people, pools, hardware, margins, reconciliation, prices)
"""Each has `routes(frame)`."""
