"""Errors of the disk in commands other than training: an answer in one line, and what was there is there still."""

import builtins
import errno
import io
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import write

from equiscope.runs.train import train
from tests.faults.faults import FullDisk
from tests.faults.harness import command, holds
from tests.runs import toy

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)


class FailingDisk(FullDisk):
    """As a full disk, with another error."""

    def __init__(self, first: int | None, number: int):
        super().__init__(first)
        self.number = number

    def tick(self) -> None:
        self.count += 1
        if self.first is not None and self.count >= self.first:
            raise OSError(self.number, os.strerror(self.number))


class UnreadableDisk:
    """Every file under a folder fails when it is opened to be read, in whichever way."""

    def __init__(self, folder: Path, number: int):
        self.folder, self.number = folder, number
        self.ways = ((builtins, "open"), (io, "open"), (os, "open"))

    def __enter__(self):
        self._right = [getattr(module, name) for module, name in self.ways]
        for (module, name), right in zip(self.ways, self._right, strict=True):
            setattr(module, name, partial(self._opened, right))

    def __exit__(self, *exception):
        for (module, name), right in zip(self.ways, self._right, strict=True):
            setattr(module, name, right)

    def _opened(self, right, file, mode="r", *arguments, **settings):
        reads = not mode & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY) if isinstance(mode, int) else "r" in mode
        if not isinstance(file, int) and reads and Path(file).is_relative_to(self.folder):
            raise OSError(self.number, os.strerror(self.number), os.fspath(file))
        return right(file, mode, *arguments, **settings)


def _calculator_and_file(root: Path) -> tuple[str, Path]:
    path = root / "water.extxyz"
    write(path, [Atoms("H2O", np.array([[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]]) + 0.01 * k)
                 for k in range(4)])  # fmt: skip
    return "ase.calculators.lj:LennardJones", path


def disk_errors(root: Path):
    """Each error at the first, a middle and the last write of a command, and at every read."""
    torch.manual_seed(0)
    whole = train(toy.config(root / "run"), show_progress=False)
    calculator, structures = _calculator_and_file(root)
    table, found = root / "table.csv", root / "found.json"
    (root / "list.smi").write_text("CCO ethanol\nC methane\nN ammonia\nCCN ethylamine\n")
    commands = {
        "report": (("report", whole.path), whole.report),
        "measure --csv --json": (
            ("measure", "--calculator", calculator, structures, "--csv", table, "--json", found), found
        ),
        "data describe --json": (("data", "describe", "--format", "smiles", root / "list.smi", "--json", found), found),
    }  # fmt: skip
    for name, (words, product) in commands.items():
        with FullDisk(None) as disk:
            code, said = command(*words)
        holds(code == 0, said[-300:])
        places = {1: "first", (disk.count + 1) // 2: "middle", disk.count: "last"}
        for number in ERRORS:
            for first, place in places.items():

                def attempt(words=words, product=product, number=number, first=first):
                    before = product.read_bytes()
                    with FailingDisk(first, number):
                        code, said = command(*words)
                    holds(code == 2 and os.strerror(number) in said, f"status {code}: {said[-300:]}")
                    holds(product.read_bytes() == before or first > 1, "what was there before is gone")
                    holds(product.stat().st_size > 0, "half a file is left")

                yield f"{name}: {errno.errorcode[number]} at the {place} write", attempt
    for number in (errno.EIO, errno.EACCES, errno.ESTALE):

        def unread(number=number):
            with UnreadableDisk(whole.path, number):
                code, said = command("report", whole.path)
            holds(code == 2, f"status {code}: {said[-300:]}")

        yield f"report: {errno.errorcode[number]} at a read", unread
