"""What every test may ask for. Nothing here is a stand-in: the database is a real PostgreSQL."""

from __future__ import annotations

import os

from hypothesis import settings

# Two cores, shared: a fixed number of examples says more than a deadline. CI may ask for more.
settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
