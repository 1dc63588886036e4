"""``python -m orchestrator``: the command line from a plain checkout."""

from orchestrator.cli import main

main()
