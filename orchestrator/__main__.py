"""``python -m orchestrator``: the command line from a plain checkout."""

from prunesweep import main

main()
