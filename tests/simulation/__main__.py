"""Run seeds: `python -m tests.simulation --seeds 10000`."""

import sys

from tests.simulation.explore import main

if __name__ == "__main__":
    sys.exit(main())
