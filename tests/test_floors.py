"""The house has floors: a file imports only from floors above its own, and rooms of one floor are strangers."""

import ast
from pathlib import Path

import pytest

import equiscope

# The package's own front page (`import equiscope as eq`) shows the measure, so it stands on the measure's floor.
FLOORS = (
    ("errors", "words", "signatures"),
    ("symmetry", "units", "labels", "files", "writing"),
    ("decomposition", "records", "testing", "equiscope"),
    ("adapters", "analysis", "tasks"),
    ("runs", "conf"),
    ("report", "commands", "cli"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Doors within a floor, from the first room into the second.
DOORS = {
    ("testing", "decomposition"),
    ("equiscope", "decomposition"),
    ("runs", "conf"),
    ("commands", "report"),
    ("cli", "commands"),
}


def room_of(parts):
    """The room of a module named by its parts below the package; a name from its front page is the front page's."""
    return parts[0] if parts and parts[0] in FLOOR_OF else "equiscope"


def imported(path, package):
    """(line, room) of every import of the package's own modules in a file, also those inside functions."""
    module = [package.name, *path.relative_to(package).with_suffix("").parts]
    here = module[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == package.name:
                yield node.lineno, room_of(name[1:])


def violations(package):
    """Imports against the floors, one message each; also files that stand on no floor."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        where = path.relative_to(package.parent)
        room = room_of(parts)
        if room == "equiscope" and parts != ("__init__",):
            found.append(f"{where}: {parts[0]!r} has no floor")
            continue
        for line, other in imported(path, package):
            above = FLOOR_OF[other] < FLOOR_OF[room]
            if not (above or other == room or (room, other) in DOORS):
                found.append(f"{where}:{line}: {room} imports {other}")
    return found


def test_every_file_imports_only_from_floors_above():
    assert violations(Path(equiscope.__file__).parent) == []


def test_every_room_of_the_package_has_a_floor():
    package = Path(equiscope.__file__).parent
    rooms = {room_of([p.stem]) for p in package.iterdir() if (p.is_dir() and any(p.glob("*.py"))) or p.suffix == ".py"}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("symmetry/a.py", "from equiscope.decomposition import split", "symmetry imports decomposition"),
        ("decomposition/a.py", "import equiscope.adapters.pyg as p", "decomposition imports adapters"),
        ("decomposition/a.py", "def f():\n    from equiscope import tasks", "decomposition imports tasks"),
        ("decomposition/a.py", "import equiscope", "decomposition imports equiscope"),
        ("decomposition/a.py", "from equiscope import records", "decomposition imports records"),
        ("decomposition/a.py", "from equiscope.testing import LinearMap", "decomposition imports testing"),
        ("decomposition/a.py", "from ..tasks.task import Probe", "decomposition imports tasks"),
        ("decomposition/a.py", "from .. import runs", "decomposition imports runs"),
        ("testing/a.py", "from equiscope.runs import train", "testing imports runs"),
        ("tasks/forcefield/a.py", "from equiscope.analysis import heads", "tasks imports analysis"),
        ("tasks/forcefield/a.py", "from ...adapters import pyg", "tasks imports adapters"),
        ("adapters/a.py", "import torch, equiscope.tasks", "adapters imports tasks"),
        ("analysis/a.py", "from equiscope.runs.folder import x", "analysis imports runs"),
        ("report/a.py", "from equiscope.cli import main", "report imports cli"),
        ("runs/a.py", "from equiscope.commands import measure", "runs imports commands"),
        ("errors.py", "import equiscope.symmetry.actions", "errors imports symmetry"),
        ("__init__.py", "from equiscope.adapters import lightning", "equiscope imports adapters"),
        ("attic/a.py", "", "'attic' has no floor"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, source, message):
    file = tmp_path / "equiscope" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    found = violations(tmp_path / "equiscope")
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("symmetry/a.py", "from equiscope.errors import InputError\nfrom .rotations import haar"),
        ("symmetry/b.py", "from . import actions"),
        ("testing/a.py", "from equiscope.decomposition.split import SampleValues"),
        ("tasks/forcefield/a.py", "import equiscope as eq\nfrom equiscope import Declaration\nfrom ..task import Task"),
        ("tasks/a.py", "import equiscope_extras.runs\nfrom somewhere.equiscope import runs"),
        ("runs/a.py", "from equiscope.tasks.task import Task\nfrom equiscope.analysis import heads"),
        ("cli.py", "from equiscope.commands import measure"),
        ("commands/a.py", "from equiscope.report import page"),
        ("commands/measure.py", "from equiscope.adapters.ase import measure_calculator"),
        ("__init__.py", "from equiscope import errors\nfrom equiscope.decomposition.measure import measure"),
    ],
)
def test_imports_from_above_pass(tmp_path, path, source):
    file = tmp_path / "equiscope" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert violations(tmp_path / "equiscope") == []


def classes_named_twice(package):
    """Class names that stand in more than one file: a reader would take one for the other."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).add(str(path.relative_to(package)))
    return {name: sorted(files) for name, files in found.items() if len(files) > 1}


def test_no_class_name_means_two_things(tmp_path):
    assert classes_named_twice(Path(equiscope.__file__).parent) == {}
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("class Run:\n    pass\n")
    assert classes_named_twice(tmp_path) == {"Run": ["a.py", "b.py"]}


def rings(package):
    """The files of the package that import one another in rings, also inside functions or by name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    needs = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                needs[name] |= {alias.name for alias in node.names} & set(files)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                needs[name] |= (inner & set(files)) or ({node.module} & set(files))
            elif isinstance(node, ast.Constant) and node.value in files and node.value != package.name:
                needs[name].add(node.value)
    needs = {name: others - {name} for name, others in needs.items()}
    # What needs none of the rest, or is needed by none, is in no ring.
    while free := {n for n, own in needs.items() if not own & set(needs)} | set(needs) - set().union(*needs.values()):
        needs = {name: others for name, others in needs.items() if name not in free}
    return sorted(needs)


def test_files_import_one_another_in_one_direction(tmp_path):
    assert rings(Path(equiscope.__file__).parent) == []
    package = tmp_path / "equiscope"
    package.mkdir()
    (package / "a.py").write_text("from equiscope import b\n")
    (package / "b.py").write_text("def f():\n    from equiscope.c import g\n")
    (package / "c.py").write_text("import importlib\nimportlib.import_module('equiscope.a')\n")
    (package / "d.py").write_text("from equiscope.a import f\n")
    (package / "e.py").write_text("import equiscope.d\n")
    assert rings(package) == ["equiscope.a", "equiscope.b", "equiscope.c"]
