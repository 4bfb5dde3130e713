"""Bugs planted in a copy of the source: anchored by file and function, with a pattern that outlives renames of locals.

A bug that does not find its place, finds two, or changes nothing a Python program would notice fails by its name.
"""

import ast
import functools
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.planted import bugs as folder

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class PlantingError(ValueError):
    """A bug cannot be planted in the source as it stands."""


@dataclass(frozen=True)
class Bug:
    r"""One planted bug.

    Attributes:
        name: what the bug is, in words.
        file: source file under ``src/equiscope``.
        where: qualified name (``Class.method``, ``outer.inner``) of a function, method, class or module constant;
            "" is the whole module. If the file no longer has it, the only other file that does is taken.
        pattern: regular expression with exactly one match in that piece of source. A space in it matches any run of
            whitespace, line breaks included; ``(\w+)`` stands for a name that may change.
        replacement: template of :func:`re.sub`.
        tests: test files under ``tests`` of which at least one test must fail.
    """

    name: str
    file: str
    where: str
    pattern: str
    replacement: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of a source file: the characters from ``start`` to ``end`` of its text."""

    file: Path
    text: str
    start: int
    end: int

    @property
    def source(self) -> str:
        return self.text[self.start : self.end]


def bug(name: str, file: str, where: str, pattern: str, replacement: str, *tests: str) -> Bug:
    """A bug whose tests are named as "decomposition/test_noise"."""
    return Bug(name, file, where, pattern, replacement, tuple(f"{t}.py" for t in tests))


def every_bug() -> tuple[Bug, ...]:
    """The bugs of every file in ``tests/planted/bugs``, in the order of the files' names.

    Raises:
        PlantingError: if two of them share a name.
    """
    names = sorted(m.name for m in pkgutil.iter_modules(folder.__path__))
    found = tuple(b for n in names for b in importlib.import_module(f"{folder.__name__}.{n}").BUGS)
    twice = sorted({b.name for b in found if sum(o.name == b.name for o in found) > 1})
    if twice:
        raise PlantingError(f"two bugs of one name: {twice}")
    return found


def change(planted: Bug, source: Path) -> tuple[Path, str]:
    """The file of the package at ``source`` that the bug changes, and what its text becomes; nothing is written.

    Raises:
        PlantingError: if its place or pattern is not found exactly once, or the outcome is no Python or no change.
    """
    piece = locate(planted, source)
    expression = re.compile(re.sub(r"\s+", lambda _: r"\s+", planted.pattern))
    matches = list(expression.finditer(piece.source))
    place = f"{piece.file.relative_to(source)}, {planted.where or 'the whole module'}"
    if len(matches) != 1:
        raise _error(planted, f"{planted.pattern!r} matches {len(matches)} times in {place}, not once")
    start, end = piece.start + matches[0].start(), piece.start + matches[0].end()
    text = piece.text[:start] + matches[0].expand(planted.replacement) + piece.text[end:]
    try:
        changed = ast.parse(text)
        compile(changed, str(piece.file), "exec")
    except SyntaxError as error:
        raise _error(planted, f"{place} is no Python any more: {error}") from error
    if ast.dump(_plain(changed)) == _program(piece.text):
        raise _error(planted, f"{place} is the same program as before")
    return piece.file, text


def locate(planted: Bug, source: Path) -> Piece:
    """The piece of source in which the bug's pattern is looked for.

    Raises:
        PlantingError: if there is none, or more than one.
    """
    named = source / planted.file
    found = list(_pieces(named, planted.where)) if named.is_file() else []
    if not found and planted.where:
        found = [p for file in sorted(source.rglob("*.py")) for p in _pieces(file, planted.where)]
    if len(found) != 1:
        files = sorted({str(p.file.relative_to(source)) for p in found})
        wanted = f"{planted.where!r} ({planted.file})" if planted.where else planted.file
        raise _error(planted, f"{wanted} is found {len(found)} times: {', '.join(files) or 'nowhere'}")
    return found[0]


def _pieces(file: Path, where: str) -> Iterator[Piece]:
    text = file.read_text()
    if not where:
        yield Piece(file, text, 0, len(text))
        return
    for name, start, end in _places(text):
        if name == where:
            yield Piece(file, text, start, end)


@functools.lru_cache(maxsize=512)
def _places(text: str) -> list[tuple[str, int, int]]:
    """Name, first and last character of every definition in a source, which several bugs are planted in."""
    offsets, found = [0], []
    for line in text.split("\n"):
        offsets.append(min(offsets[-1] + len(line) + 1, len(text)))
    for name, node in _named(ast.parse(text).body, ""):
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        found.append((name, offsets[first - 1], offsets[node.end_lineno or node.lineno]))
    return found


@functools.lru_cache(maxsize=8)
def _program(text: str) -> str:
    """What a Python program would notice of a source."""
    return ast.dump(_plain(ast.parse(text)))


def _named(body: Iterable[ast.AST], prefix: str, local: bool = False) -> Iterator[tuple[str, ast.stmt]]:
    """Every definition and every assignment to a name of a module or class, with its qualified name."""
    for node in body:
        if isinstance(node, _DEFINITIONS):
            yield prefix + node.name, node
            yield from _named(node.body, f"{prefix}{node.name}.", local or not isinstance(node, ast.ClassDef))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not local:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((prefix + t.id, node) for t in targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.stmt | ast.excepthandler):
            yield from _named(ast.iter_child_nodes(node), prefix, local)


def _plain(tree: ast.Module) -> ast.Module:
    """The tree without its docstrings, which no test of a bug would notice."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *_DEFINITIONS)) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _error(planted: Bug, reason: str) -> PlantingError:
    return PlantingError(f"the bug {planted.name!r} cannot be planted: {reason}")
