"""What people read: records of a layer, the terminal table, the JSON document; data in, renderable out.

record -- `LayerReport`, everything known about one layer
document -- the JSON form of a layer
dataset -- the labelled form of all layers
table -- the exact values beside the FFT's, in the terminal
bounds -- every bound of a layer, and a summary over layers, in the terminal
contents -- what is in a model file, in the terminal
notes -- the footnotes of both
course -- some iterations of a descent, in the terminal
plots -- the same as pictures
plots_bounds -- bounds as pictures
summary -- what the numbers show, in plain words
text -- numbers, geometries and names as short text
"""
