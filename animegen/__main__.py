"""``python -m animegen`` is the same as ``animegen``."""

import sys

from animegen.cli.main import main

sys.exit(main())
