"""`python -m tshsr` is `tshsr`."""

import sys

from tshsr.cli import main

sys.exit(main())
