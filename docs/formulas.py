"""Formulas of docstrings as mathematics: what a terminal shows in plain notation, the pages typeset.

A formula stands in a docstring as an indented paragraph of its own before the first section, ``total = E_g l(p_g, y)``:
``E_g`` is a mean, ``sum_c`` a sum, ``|x|`` a norm, ``<a, b>`` a product, three blanks or more part two formulas.
Within a sentence it stands between single backticks: `p_g = g^-1 f(g x)`.
"""

import re

from docutils import nodes
from docutils.utils import unescape

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Source|Example)s?:")
#: What is code and no formula.
CODE = re.compile(r">>>|^(from|import|def|python) |eq\.|inputs=|outputs=|batch=|\w\(\)|print\(")
GREEK = {"phi", "rho", "chi", "delta", "theta", "mu", "nu", "pi", "lambda", "eps"}
OPERATOR = re.compile(r"(?<! ) (>=|<=|!=|[=+/·−×<-]) (?! )")
SIGNS = {">=": r"\ge ", "<=": r"\le ", "!=": r"\ne ", "·": r"\cdot ", "−": "-", "×": r"\times ", "≠": r"\ne "}
NAMED = {"sum": r"\sum", "Σ": r"\sum", "prod": r"\prod", "E": r"\mathbb{E}", "max": r"\max", "exp": r"\exp",
         "cos": r"\cos", "sqrt": r"\sqrt"}  # fmt: skip
TOKEN = re.compile(
    r"(?P<word>[^\W\d_]{2,}(?:'s\b)?|Σ|E(?=[ _(]))|(?P<sub>_(?:\{[^}]*\}|[A-Za-z0-9]+|[±+-]))"
    r"|(?P<sup>\^(?:-?\w+|[{(*]))|(?P<gap> {3,})|(?P<times>(?<=[\d)]) x (?=\w))|(?P<sign>>=|<=|!=|[·−×≠])"
    r"|(?P<bar>\|)|(?P<open><(?=[\w( ]+[^<>]*, ))|(?P<close>(?<=[\w)])>)|(?P<other>.)",
    re.S,
)


def latex(formula):
    """A line in plain notation as LaTeX.

    >>> print(latex("total = E_g |p_g - y|^2"))
    \\text{total}=\\mathbb{E}_{g}\\,\\vert p_{g}-y\\vert ^{2}
    """
    tight = OPERATOR.sub(r"\1", formula)
    return "".join(_piece(match.lastgroup, match.group()) for match in TOKEN.finditer(tight)).strip()


def _piece(kind, text):
    if kind == "word":
        return NAMED.get(text) or (f"\\{text.replace('eps', 'epsilon')} " if text in GREEK else f"\\text{{{text}}}")
    if kind in ("sub", "sup"):
        inner = text[1:].strip("{}")
        script = inner if len(inner) < 3 and inner not in NAMED else latex(inner)
        return f"{text[0]}{{{script}}}" if inner not in ("(", "*") else f"^{inner}"
    fixed = {"gap": r"\qquad ", "times": r" \times ", "bar": r"\vert ", "open": r"\langle ", "close": r"\rangle "}
    return fixed.get(kind) or SIGNS.get(text) or (r"\," if text == " " else text)


def typeset(app, what, name, obj, options, lines):
    """Formulas of a docstring as math directives, in place."""
    made, place = [], 0
    while place < len(lines):
        line = lines[place]
        if SECTION.fullmatch(line):
            break
        block = []
        while place < len(lines) and lines[place].startswith("    "):
            block.append(lines[place].strip())
            place += 1
        alone = not made or not made[-1].strip()
        if block and alone and not any(map(CODE.search, block)):
            for formula in (part for one in block for part in re.split(r" {6,}(?=[^=]*=)", one)):
                made += [".. math::", "", f"    {latex(formula)}", ""]
        else:
            made += [f"    {one}" for one in block] if block else [line]
            place += not block
    lines[:] = [*made, *lines[place:]]


def inline(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role of text between single backticks."""
    return [nodes.math(rawtext, latex(unescape(text)))], []
