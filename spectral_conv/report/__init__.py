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
plots_layers -- the spectrum of a layer as pictures
plots_images -- its symbol and its singular vectors as pictures
plots_penalty -- the penalty over a descent as a picture
figures -- the arrays that pictures of a layer are drawn from
findings -- what to know first about a model, in sentences
html, html_layers, html_runs -- pages that need no network: of a model, and of descents
html_svg, html_templates -- what they are made with
spreadsheet -- the table as CSV
summary -- what the numbers show, in plain words
text -- numbers, geometries and names as short text
"""
