"""Settings of the documentation: `make docs` builds it, without a network."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# Before NumPy is loaded: several BLAS threads on a busy machine of few cores are many times slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from spectral_conv import __version__

project = "spectral_conv"
author = "The spectral_conv developers"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "docstrings",
    "mathml",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "gallery", "tutorial"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# Single backticks in docstrings name parameters as well as objects. Those that name a documented object link to it.
default_role = "py:obj"
nitpick_ignore_regex = [(r"py:obj", r".*")]

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
# The types stand in the section "Parameters".
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
if importlib.util.find_spec("torch") is None:
    autodoc_mock_imports = ["torch"]

sphinx_gallery_conf = {
    "examples_dirs": ["tutorial", "gallery"],
    "gallery_dirs": ["generated/tutorial", "generated/gallery"],
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "image_srcset": ["2x"],
    "matplotlib_animations": False,
}

html_theme = "furo"
html_title = f"spectral_conv {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
