"""The quickstart from Python: the same sweep, launched by a driver script.

python examples/driver.py [KEY=VALUE ...]
"""

import sys
from pathlib import Path

from prunesweep import Sweep


def main(overrides: list[str]) -> None:
    """Run the sweep and say which arm came out highest at each target."""
    sweep = Sweep.from_file(Path(__file__).parent / "quickstart.yaml", overrides)
    comparison = sweep.run()
    for table in comparison.tables:
        leader = table.leader
        if leader is not None and leader.accuracy is not None:
            print(f"{table.target}: {leader.name} {leader.accuracy.mean:.2f} %, {leader.verdict}")


if __name__ == "__main__":
    main(sys.argv[1:])
