"""What the README shows is what happens: its example runs as written, its commands and files exist."""

import re
from pathlib import Path

import torch

from equiscope import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    """Fenced blocks opened with exactly this word; fences come in pairs."""
    fenced = README.split("```")[1::2]
    return [block.split("\n", 1)[1] for block in fenced if block.split("\n", 1)[0] == language]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def forward(self, batch):
        return {"forces": self.net(batch["pos"])}


def test_the_three_lines_run_as_written(capsys):
    torch.manual_seed(0)
    loader = [{"pos": torch.randn(8, 5, 3), "forces": torch.randn(8, 5, 3)} for _ in range(3)]
    (example,) = blocks("python")
    exec(example, {"model": Model(), "loader": loader})
    printed = capsys.readouterr().out
    number, skill = r"[\d.e-]+ % of the loss is equivariance error \(95 % .*\)", r"R² -?[\d.]+"
    few = r"(; carried by [\d.]+ of 24 clusters)?"
    assert re.match(rf"{number}{few}; {skill}; 24 rotations x 24 samples", printed)


def test_the_output_it_shows_has_the_shape_of_ours():
    shown = next(b for b in blocks("") if "% of the loss" in b)
    number = r"[\d.]+ % of the loss is equivariance error \(95 % CI [\d.]+–[\d.]+\)"
    assert re.fullmatch(rf"{number}; R² [\d.]+; \d+ rotations x \d+ samples\n", shown)


def test_the_files_it_names_exist():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_commands_it_names_exist(capsys):
    words = set(re.findall(r"equiscope (\w+) ", README)) & {"train", "report", "measure", "sample", "demo", "data"}
    assert words >= {"train", "report", "measure", "sample"}
    parser = cli.parser()
    for word in words:
        assert word in parser.format_help()


def test_the_make_targets_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_names_in_the_table_are_exported():
    import equiscope as eq

    for name in set(re.findall(r"eq\.(\w+)", README)):
        assert hasattr(eq, name), name
