"""Run the simulation: `python tests/simulation --seeds 0-9999`, or one seed with its story: `--seed 17`."""

from world.command import main

main()
