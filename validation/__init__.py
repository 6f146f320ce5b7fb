"""Claims of the package, checked: benchmarks here, validation cases beside them."""
