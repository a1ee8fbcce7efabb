"""Which replica: pure policies, one per file."""
