"""One machine: embedded Postgres and Valkey, first-run set-up, `penstock up`."""
