"""``python -m semprior``."""

import sys

from semprior.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
