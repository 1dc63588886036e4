"""Environment variables that say where records are; importing this costs nothing."""

from typing import Final

STORE: Final = "PRUNESWEEP_STORE"
LEDGER: Final = "PRUNESWEEP_LEDGER"
