"""Endpoints: stable names with their own keys and rules, and what each kind of them promises."""
