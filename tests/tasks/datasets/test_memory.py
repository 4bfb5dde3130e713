"""Memory of a reader does not grow with the file (the whole proof: `make datasets`, a million frames)."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from equiscope.tasks.datasets import catalogue, mapped, orientation_bias, stream
from equiscope.tasks.datasets.description import describe
from tests.tasks.datasets import layouts

TIMES = 12
# Of the bytes of positions and forces in the frames that the longer file has more; what is kept whole gives 1.
SHARE = 0.15


def added(atoms):
    return (TIMES - 1) * atoms * 2 * 3 * 8


def ani(path, times):
    return layouts.ani1x(path, {f"m{i}": molecule(i) for i in range(20 * times)})


def spice(path, times):
    return layouts.spice(path, {f"m{i}": molecule(i) for i in range(20 * times)})


def md17(path, times):
    x, e, f = layouts.frames(layouts.METHANE, 4000 * times, 0)
    np.savez(path, z=np.array(layouts.METHANE, np.uint8), R=x, E=e[:, None], F=f)
    return path


def extxyz(path, times):
    frame = "100\nProperties=species:S:1:pos:R:3\n" + "".join(f"H {i} {i % 3}.5 1\n" for i in range(100))
    path.write_text(frame * 20 * times)
    return path


def molecule(i):
    return (layouts.METHANE, *layouts.frames(layouts.METHANE, 50, i))


def peak(work):
    work()  # imports and caches are no part of it
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize(
    ("name", "write", "ending", "atoms", "options"),
    [
        ("spice", spice, "hdf5", 5000, {}),
        ("ani1x", ani, "h5", 5000, {}),
        ("md17", md17, "npz", 20000, {}),
        ("extxyz", extxyz, "xyz", 2000, {"energy_unit": "eV", "length_unit": "Å"}),
    ],
)
def test_reading(tmp_path, monkeypatch, name, write, ending, atoms, options):
    # The frames that the orientation test keeps are full in the shorter file already.
    monkeypatch.setattr(orientation_bias, "FRAMES", 64)
    monkeypatch.setattr(orientation_bias, "ATOMS_AT_ONCE", 200)

    def work(path):
        source, rejected = catalogue.source(name, path, options), Counter()
        return lambda: describe(stream.read(source, stream.Rules(), stream.Sample(), rejected), {}, rejected)

    short, long = (peak(work(write(tmp_path / f"{times}.{ending}", times))) for times in (1, TIMES))
    assert long - short < SHARE * added(atoms)


def test_converting(tmp_path):
    def work(path):
        source = catalogue.source("spice", path)
        target = tmp_path / f"{path.stem}.frames"

        def convert():
            blocks = stream.read(source, stream.Rules(), stream.Sample(), Counter())
            mapped.write(target.with_name(f"{len(list(tmp_path.iterdir()))}.frames"), blocks, {})

        return convert

    short, long = (peak(work(spice(tmp_path / f"{times}.hdf5", times))) for times in (1, TIMES))
    assert long - short < SHARE * added(5000)


def test_what_keeps_everything_is_seen(tmp_path):
    def work(path):
        source = catalogue.source("spice", path)
        return lambda: describe(list(stream.read(source, stream.Rules(), stream.Sample(), Counter())), {}, {})

    short, long = (peak(work(spice(tmp_path / f"{times}.hdf5", times))) for times in (1, TIMES))
    assert long - short > added(5000)
