"""Published claims, one file each: what a paper says, and what this package finds.

``python -m validation.cases [--figures FOLDER]`` (or ``make validate``) prints a table and draws the papers' figures.
"""
