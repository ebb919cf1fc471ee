"""`python -m lbt_sim`."""

from lbt_sim.cli import main

main()
