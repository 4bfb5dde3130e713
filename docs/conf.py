"""The documentation site: `make docs` builds it into build/docs. Formulas become MathML, so nothing is fetched."""

import importlib.metadata
import re
from html import escape

import latex2mathml.converter
from docutils.nodes import SkipNode

project = "equiscope"
author = "The equiscope developers"
release = importlib.metadata.version("equiscope")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["images"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "equiscope"
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_math_renderer = "mathml"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"
nitpicky = False


def _inline(translator, node):
    translator.body.append(latex2mathml.converter.convert(node.astext()))
    raise SkipNode


def _block(translator, node):
    body = latex2mathml.converter.convert(node.astext(), display="block")
    translator.body.append(f'<div class="math-block" aria-label="{escape(node.astext(), quote=True)}">{body}</div>')
    raise SkipNode


def _bars(app, what, name, obj, options, lines):
    """|x|² in a docstring is a norm, not a substitution."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[number] = "".join(p if p.startswith("``") else p.replace("|", "\\|") for p in parts)


def setup(app):
    app.connect("autodoc-process-docstring", _bars, priority=900)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
