"""Claims and whether they hold: what every case returns, and how the cases are found, run and shown.

check -- a claim with its source, the interval it puts a number in, and the number
papers -- where the claims come from
picture -- a figure that shows some checks
run -- find the cases and run them
document -- the outcome as JSON
table -- the outcome on a terminal
page -- the outcome as a page of HTML with figures
machine -- what the numbers were computed with
command -- all of it, for ``spectral-conv validate``
"""
