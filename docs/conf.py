"""Sphinx configuration: `make docs` builds the site into build/docs, offline; every warning is an error."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "tshsr"
author = "The tshsr developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's own name
release = version = importlib.metadata.version("tshsr")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstring_markup"]
exclude_patterns = ["_extensions", "_static"]

html_theme = "furo"
html_title = f"tshsr {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
# Code blocks name their language; without a lexer for it a block is plain text.
highlight_language = "none"

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

nitpicky = True
# References into other projects have no target offline, and types of internal modules have no page. Everything that a
# docstring or a page links to by hand (a role such as :func:`...`) is still checked.
nitpick_ignore_regex = [("py:(class|obj|data|exc)", r".*")]
# `torch.device` in a signature matches the attribute `device` of two classes; neither is meant.
suppress_warnings = ["ref.python"]
