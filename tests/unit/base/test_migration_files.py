"""The migrations as they are in the tree: changes made side by side must not take one number."""

from __future__ import annotations

import pytest

from penstock_base import migrations


@pytest.mark.parametrize(
    ("room", "package"),
    [
        ("access", "penstock.access"),
        ("engines", "penstock_engines"),
        ("billing", "penstock_billing"),
        ("admission", "penstock.admission"),
        ("endpoints", "penstock.endpoints"),
        ("adapters", "penstock.adapters"),
        ("audit", "penstock.access.audit"),
    ],
)
def test_each_migration_of_a_room_has_a_number_of_its_own(room: str, package: str) -> None:
    assert migrations.read(room, package)
