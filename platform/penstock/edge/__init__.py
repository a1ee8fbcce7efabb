"""HTTP in and out: one file per surface."""
