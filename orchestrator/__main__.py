"""``python -m orchestrator``: the command line from a plain checkout."""

from orchestrator.commands.cli import main

main()
