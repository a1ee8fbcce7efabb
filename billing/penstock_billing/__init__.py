"""Metering and money: usage records, journal, shipper, prices, rating, ledger. Knows no HTTP."""
