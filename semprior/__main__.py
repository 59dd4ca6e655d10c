"""``python -m semprior``."""

import sys

from semprior.cli import main

sys.exit(main())
