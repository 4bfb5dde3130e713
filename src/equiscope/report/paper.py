"""Every number of the paper that the report sets beside ours, and the words of its claims, as ``paper.toml`` has them.

Source: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. Curves that are drawn beside a run's own come with the run's records, from its task.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from equiscope.report.views import view

Row = tuple[str, ...]
#: Columns of the tables of studies.
COLUMNS = ("point", "first ≤ 2 %", "last above 2 %", "dip", "end")
#: The step within which the paper sees the share fall under 2 %.
WINDOW = 10_000
#: The lower end of the paper's range of steps: shorter runs decide nothing.
SHORTEST = 1_000
EASIER = "condition number of the equivariance error about 1,000 times lower (force field)"
EFFICIENCY = "lower loss for the non-equivariant model, on GPUs; no ratio is published"
#: Pairs whose second member is the first one in another form.
IDENTITIES = ("equivariance error ~ exact form",)


@dataclass(frozen=True)
class Told:
    """What the paper reports of one task: the 2 % crossing, the end of training, both by size, each study's table.

    probe: the one that decides, where that is not the headline of a run.
    turned: whether every training sample was given a random orientation; the force field's data have one already.
    """

    crossing: str
    end: str
    sizes: str
    studies: dict[str, tuple[Row, ...]]
    probe: str
    turned: bool


def _unwrapped(told: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of several lines in one."""
    return {name: " ".join(value.split()) if isinstance(value, str) else value for name, value in told.items()}


_FILE = tomllib.loads(resources.files(__package__).joinpath("paper.toml").read_text(encoding="utf-8"))
#: Each claim of the abstract, in its order -> ``title``, ``says`` and ``rule``, with names of constants in braces.
CLAIMS = {claim: _unwrapped(told) for claim, told in _FILE["claims"].items()}
#: In the order of the abstract.
TASKS = {task: view(Told, _unwrapped(told)) for task, told in _FILE["tasks"].items()}
_CORRELATIONS = _FILE["correlations"]
#: The pairs that the paper itself relates.
OWN_PAIRS = tuple(found[0] for found in _CORRELATIONS.values())


def told(task: str) -> Told:
    """What the paper reports of a task, nothing of one that it does not have."""
    return TASKS.get(task) or view(Told, {})


def counts(task: str, probe: str) -> bool:
    """Whether a probe of a task measures its model: oracles, and others than the one that decides, do not."""
    return not probe.startswith("oracle") and told(task).probe in ("", probe)


def correlation_of(pair: str) -> str:
    """The paper's correlations for a pair of that very name, as a cell of a table."""
    found = next((row for row in _CORRELATIONS.values() if row[0] == pair), None)
    return f"{found[2]:.2f} / {found[3]:.2f} (EScAIP)" if found else "–"


def correlation_words(pair: str) -> str:
    """The paper's correlations for a pair whose name speaks of the same, in words."""
    found = next((row for word, row in _CORRELATIONS.items() if word in pair), None)
    return f"{found[1]}: Pearson {found[2]:.2f}, Spearman {found[3]:.2f} (force field)" if found else ""
