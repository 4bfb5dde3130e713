"""The register of analyses: found by their files, light, and recorded as the first versions recorded them."""

import subprocess
import sys

import pytest

from equiscope.errors import InputError
from equiscope.runs.kinds import COMMON, analyses, check, settable

#: The settings in the records of earlier versions: a record with others would be made again.
RECORDED = {
    "brute": {"rotations": "T", "cosets": 2, "seed": 0, "samples": 2, "count": 100_000},
    "conditioning": {"rotations": "O", "cosets": 1, "seed": 0, "samples": 32, "batch": 4, "head": None},
    "dynamics": {
        "rotations": "T", "cosets": 1, "seed": 0, "samples": None, "minibatches": 40, "draws": 8, "curved": 12,
        "depth": 14, "products": 5, "batch": 4,
    },
    "gradients": {"rotations": "T", "cosets": 2, "seed": 0, "samples": 48, "batch": 4},
    "heads": {"rotations": "T", "cosets": 2, "seed": 0, "samples": 64, "head": None},
    "hessian": {
        "rotations": "T", "cosets": 1, "seed": 0, "samples": 16, "batch": 4, "matrices": ["hessian"], "vectors": 2,
        "which": ["twirled", "equivariance"], "tolerance": 0.02, "steps": 40, "depth": 14, "bias": False,
    },
    "landscape": {
        "rotations": "T", "cosets": 1, "seed": 0, "samples": 16, "batch": 4, "points": 11, "plane_points": 9,
        "span": 0.005, "tolerance": 0.1, "steps": 15,
    },
    "layers": {"rotations": "O", "cosets": 2, "seed": 0, "samples": 16, "layers": None, "degrees": 2},
    "spectrum": {"rotations": "I", "cosets": 2, "seed": 0, "samples": None, "degrees": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_settings_are_recorded_as_ever(name):
    settings = analyses()[name].settings
    assert list(settings().recorded().items()) == list(RECORDED[name].items())
    assert settings(part="final").recorded() == {**RECORDED[name], "part": "final"}


def test_the_command_offers_the_settings_that_have_words():
    found = settable()
    assert list(found)[: len(COMMON)] == ["rotations", "cosets", "seed", "samples", "part"]
    assert {name: kinds for name, (_, kinds) in found.items() if name not in COMMON} == {
        "count": ["brute"],
        "batch": ["conditioning", "gradients", "hessian", "landscape"],
        "minibatches": ["dynamics"],
        "draws": ["dynamics"],
        "head": ["conditioning", "heads"],
        "matrices": ["hessian"],
        "vectors": ["hessian"],
        "layers": ["layers"],
        "degrees": ["layers", "spectrum"],
    }


@pytest.mark.parametrize(("kinds", "words"), [(["heads", "x"], "unknown analysis 'x'"), ([], "no analysis given")])
def test_what_is_no_analysis_is_said(kinds, words):
    with pytest.raises(InputError, match=f"{words}: name one or more of brute, conditioning, dynamics, gradients"):
        check(kinds)
    check(["heads", "layers"])


def test_the_register_computes_nothing():
    """Choices, options and help without the libraries that analyse, train or draw."""
    code = (
        "import sys, equiscope; before = set(sys.modules)\n"
        "from equiscope.runs.kinds import settable; settable()\n"
        "print(*sorted({m for m in set(sys.modules) - before if not m.startswith('equiscope.runs.kinds')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"equiscope.analysis", "equiscope.tasks", "pytorch_lightning", "scipy.stats", "equiscope.runs.deal"}
    assert not heavy & set(done.stdout.split()), done.stdout
