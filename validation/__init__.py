"""Claims, checked.

cases -- those of papers, one file each
checks -- how cases are found, run and shown
benchmarks -- those of speed and memory
symbol_search -- extremes of a symbol, found without the package
kills, fuzz, models -- processes killed, files damaged, trained models
"""
