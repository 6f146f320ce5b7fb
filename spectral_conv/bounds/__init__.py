"""Upper bounds of the largest singular value."""
