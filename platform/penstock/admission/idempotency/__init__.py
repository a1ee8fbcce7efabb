"""One execution and one charge, however often a client sends a request: see `claims`."""
