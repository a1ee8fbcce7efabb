"""`python -m penstock.cli`, which is how `penstock up` starts its children."""

from penstock.cli import main

main(prog_name="penstock")
