"""The machine a trial runs on: the actor that runs trials there, and what it keeps (Ray)."""
