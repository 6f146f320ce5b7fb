"""Kill processes that append; see the package. A file of its own, so that children do not run it again."""

import sys

from validation.kills import main

sys.exit(main(sys.argv[1:]))
