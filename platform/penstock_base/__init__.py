"""The floor: money, ids, SQL, migrations. Imports nothing of ours."""
