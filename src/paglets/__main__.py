"""`python -m paglets`: the `paglets` program."""

import sys

from paglets.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
