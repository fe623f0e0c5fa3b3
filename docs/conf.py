"""The settings of Sphinx. `make docs` builds the site in build/docs."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for docstrings.py

project = "presence-proto"
version = release = version_of("presence-proto")
author = "The authors of presence-proto"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click", "docstrings"]

# A warning is an error in `make docs`, and nitpicky: a link to nowhere is a warning.
nitpicky = True

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "code"
smartquotes = False  # a --flag has two dashes

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = "presence-proto"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = ""
