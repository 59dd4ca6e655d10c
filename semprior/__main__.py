"""``python -m semprior``."""

import sys

from semprior.cli import main

if __name__ == "__main__":
    sys.exit(main())
