"""`python -m fsmde_edge` is `fsmde-edge`."""

import sys

from fsmde_edge.cli.main import main

sys.exit(main())
