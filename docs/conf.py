"""The documentation site: `make docs` builds it into build/docs. Formulas become MathML, so nothing is fetched."""

import importlib.metadata
import logging
import os
import re
import sys
import warnings
from html import escape
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from docutils.nodes import SkipNode
from sphinx.directives.code import LiteralInclude
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import formulas

from equiscope import cli
from equiscope.runs.config import settings

project = "equiscope"
author = "The equiscope developers"
release = importlib.metadata.version("equiscope")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["images", "gallery/*.ipynb", "gallery/*.py", "**sg_execution_times*"]
# What other libraries say while examples run is no part of the pages.
warnings.filterwarnings("ignore", module="pytorch_lightning")
for library in ("matplotlib", "pytorch_lightning.utilities.rank_zero"):
    logging.getLogger(library).setLevel(logging.ERROR)
# Examples are run whenever the pages are made, so that what is shown is of this code.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r".*",
    "run_stale_examples": True,
    "capture_repr": ("_repr_html_",),
    "default_thumb_file": str(Path(__file__).parent / "images" / "curve.png"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "backreferences_dir": None,
    "remove_config_comments": True,
}
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
html_theme_options = {"footer_icons": []}
copyright = "the equiscope developers, Apache-2.0"
html_show_sphinx = False
nitpicky = False
#: Characters of TeX from which a formula within a line may be wider than a phone.
LONG = 45
default_role = "formula"


def _inline(translator, node):
    made = latex2mathml.converter.convert(node.astext())
    # One that is wider than a phone scrolls by itself.
    translator.body.append(f'<span class="math-long">{made}</span>' if len(node.astext()) > LONG else made)
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


class Commands(SphinxDirective):
    """The help of every command, as the parser prints it."""

    def run(self):
        os.environ["COLUMNS"] = "96"
        actions = cli.parser()._subparsers._group_actions[0].choices
        return [part for name, command in actions.items() for part in self._section(name, command)]

    def _section(self, name, command):
        text = command.format_help()
        return [nodes.rubric(text=f"equiscope {name}"), nodes.literal_block(text, text, language="text")]


class Settings(SphinxDirective):
    """A table of settings for each task, and of what the published sets add."""

    def run(self):
        found, seen = [], set()
        for title, chosen in (("forcefield", []), ("proteinflow", ["task=proteinflow"]), ("voxels", ["task=voxels"]),
                              ("a published set, data=extxyz", ["data=extxyz"])):  # fmt: skip
            rows = [s for s in settings(chosen) if (s.name, s.default) not in seen]
            seen |= {(s.name, s.default) for s in rows}
            lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
            lines += [f"| `{s.name}` | `{s.default or ' '}` | {s.meaning.replace('|', ' ')} |" for s in rows]
            found += [nodes.rubric(text=title), *self.parse_text_to_nodes("\n".join(lines))]
        return found


class Program(LiteralInclude):
    """An example as a page shows it, without the marks of its cells."""

    def run(self):
        made = super().run()
        for block in (found for node in made for found in node.findall(nodes.literal_block)):
            block.rawsource = re.sub(r"^# %%\n", "", block.astext(), flags=re.M)
            block[:] = [nodes.Text(block.rawsource)]
        return made


def setup(app):
    app.add_directive("equiscope-commands", Commands)
    app.add_directive("equiscope-settings", Settings)
    app.add_directive("literalinclude", Program, override=True)
    app.add_role("formula", formulas.inline)
    app.connect("autodoc-process-docstring", formulas.typeset, priority=400)
    app.connect("autodoc-process-docstring", _bars, priority=900)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
