"""The way from the front door to a Result is the one that docs/house.md tells, and no longer."""

import re
import sys
from pathlib import Path

import torch

import equiscope as eq

from .models import random_batch

PACKAGE = Path(eq.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "house.md"
# The most files that a reader has to open.
FILES = 12


def entered(run):
    """File -> functions of the package through which a run enters it from another file."""
    found = {}

    def note(frame, event, argument):
        if event != "call" or not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(str(PACKAGE)):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename != frame.f_code.co_filename:
            name = frame.f_code.co_qualname.partition(".<locals>")[0]
            found.setdefault(Path(frame.f_code.co_filename).relative_to(PACKAGE), set()).add(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def told():
    """(files of the way, file -> names of the functions by which those beside it are entered), as the page has them."""
    tables = re.split(r"\| --- \| --- \|\n", PAGE.read_text())[1:3]
    rows = [re.findall(r"^\| `(.*?)` \| (.*) \|$", table, re.MULTILINE) for table in tables]
    room = Path("decomposition")
    place = [{Path(name) if (PACKAGE / name).exists() else room / name: text for name, text in row} for row in rows]
    return set(place[0]), {path: set(re.findall(r"`(\w[\w.]*)`", text)) for path, text in place[1].items()}


def test_a_measurement_takes_the_way_that_is_told():
    class Model(torch.nn.Linear):
        def forward(self, batch):
            return super().forward(batch["pos"]).tanh()

    torch.manual_seed(0)
    model, batches = Model(3, 3).double(), [random_batch(4, 3, seed=i) for i in range(2)]
    # Imported beforehand: what a module's first lines enter is not the way.
    measure = eq.measure
    found = entered(lambda: measure(model, batches, inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y"))
    way, beside = told()
    assert len(way) <= FILES
    # A data class is made by a call that has no file.
    assert way - {Path("decomposition/result.py")} == {path for path in found if path not in beside}
    for path, doors in beside.items():
        # What is private is called back, by torch or by a field's default.
        others = {n for n in found[path] if not {n, n.partition(".")[0]} & doors and not n.startswith("_")}
        assert not others, f"{path} is entered by {sorted(others)} too"
