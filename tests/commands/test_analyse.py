"""``equiscope analyse``: from a trained run to tables in the terminal and sections of the report; clear words else."""

import pytest

from equiscope.cli import main, parser
from equiscope.commands.analyse import _sorted
from equiscope.errors import InputError
from equiscope.runs.train import train
from tests.absent import without
from tests.runs.toy import config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=[0, 40], data={"dropout": 0.0}))


def test_tables_and_report(run, capsys):
    assert main(["analyse", str(run.path), "layers", "--at", "0", "40", "--samples", "4", "--rotations", "T"]) == 0
    printed = capsys.readouterr().out
    assert "Inside the network" in printed
    assert "answer" in printed
    page = (run.path / "report.html").read_text()
    assert 'id="analysis-layers-y"' in page
    assert (run.path / "figures" / "layers-y.png").exists()


@pytest.mark.parametrize("order", [["heads", "--at", "0", "40"], ["--at", "0", "40", "heads"]])
def test_kinds_stand_before_or_behind_the_steps(order):
    assert _sorted(parser().parse_args(["analyse", "run", *order])) == (["heads"], [0, 40], {})


def test_patterns_and_kinds_are_told_apart():
    options = parser().parse_args(["analyse", "run", "--layers", "a.*", "b", "layers"])
    assert _sorted(options) == (["layers"], None, {"layers": ("a.*", "b")})
    # A matrix of this name is none of the analyses.
    matrices = ["hessian", "--matrices", "hessian", "gauss_newton", "--batch", "8"]
    chosen = {"batch": 8, "matrices": ("hessian", "gauss_newton")}
    assert _sorted(parser().parse_args(["analyse", "run", *matrices])) == (["hessian"], None, chosen)
    with pytest.raises(InputError, match="no analysis given: name one or more of brute, conditioning"):
        _sorted(parser().parse_args(["analyse", "run"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["colours"], "unknown analysis 'colours'"),
        (["heads", "--at", "soon"], "--at takes training steps, got 'soon'"),
        (["heads", "--at", "7"], "no checkpoint of step 7"),
        (["layers", "--layers", "lost"], "no layer of Sequential is named 'lost'"),
        (["heads", "--head", "0"], "none of its layers (0)"),
    ],
)
def test_what_cannot_be_done_is_explained_in_one_line(run, capsys, arguments, words):
    assert main(["analyse", str(run.path), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_without_the_packages_of_pages_the_tables_are_shown_and_the_extra_is_named(run, capsys):
    with without("plotly", "jinja2"):
        assert main(["analyse", str(run.path), "heads", "--at", "40", "--samples", "4"]) == 0
    told = capsys.readouterr()
    assert "step 40" in told.out
    assert "no page was made, the records are whole" in told.err
    assert "pip install 'equiscope[report]'" in told.err
