"""The ``glora`` command as ``python -m glora.cli``."""

import sys

from glora.cli import main

sys.exit(main())
