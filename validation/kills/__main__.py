"""Kill processes that append, or that inspect; see the package. A file of its own, so that children do not run it."""

import sys

from validation.kills import inspections, main

words = sys.argv[1:]
if words[:1] == ["inspections"]:
    sys.exit(inspections.main(int(words[1]) if words[1:] else 200))
sys.exit(main(words))
