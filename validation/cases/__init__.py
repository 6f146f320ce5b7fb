"""Published claims, one file each: what a paper says, and what this package finds.

A module's docstring is its title and what it is about; ``run()`` (or ``run(full=...)``) returns its checks. There
is no list of them: every module here is found by ``spectral-conv validate`` (or ``make validate``).
"""
