"""`python -m tshsr` is `tshsr`."""

import sys

from tshsr.cli.main import main

sys.exit(main())
