"""Prepaid credit at one gateway: leased, held and spent in memory. See `lending` and billing/README.md."""
