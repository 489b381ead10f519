"""``python -m rmt.cli``."""

import sys

from rmt.cli import main

sys.exit(main())
