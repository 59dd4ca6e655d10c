"""``python -m tune``."""

import sys

from tune.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
