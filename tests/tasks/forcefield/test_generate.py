"""A data file is the same bytes for any number of processes and after any interruption; shortages are clear."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets import processes, store
from equiscope.tasks.datasets.chemistry import Molecule
from equiscope.tasks.forcefield.generate import ForceFieldData, Job, _remove_shards, generate, make_shard

SMILES = ["CCO", "CBr", "CC=O", "CCN", "CC(=O)[O-]", "CCF", "F[C@]12CC[C@@](F)(C1)C2", "CCS", "COC", "CCCl", "C[CH2]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "few.smi").write_text("\n".join(SMILES))
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> ForceFieldData:
    # 27 frames need all seven molecules at four frames each, so the one that cannot be embedded is met.
    return ForceFieldData(
        frames=27,
        seed=5,
        min_atoms=3,
        frames_per_molecule=4,
        smiles=str(folder / "few.smi"),
        path=str(folder / "one.npz"),
    )


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not depend on processes is tested without the seconds that starting them takes."""
    monkeypatch.setattr(processes, "ordered", lambda function, jobs, workers: ((job, function(job)) for job in jobs))


@pytest.fixture(scope="module")
def one(config: ForceFieldData) -> Path:
    return generate(config, workers=1, progress=False)


def test_counts_and_metadata(one: Path) -> None:
    arrays, metadata = store.read(one)
    assert arrays["frames"].sum() == len(arrays["energy"]) == 27
    assert (arrays["atoms"] * arrays["frames"]).sum() == len(arrays["positions"]) == len(arrays["forces"])
    assert arrays["atoms"].sum() == len(arrays["species"])
    counts = metadata["counts"]
    assert counts["molecules read"] == 11
    assert counts["molecules rejected"] == {"charged": 1, "element": 1, "radical": 1}
    assert counts["molecules accepted"] == 8
    assert counts["molecules used"] == 7
    assert counts["molecules dropped"] == {"embedding failed": 1}
    assert {m["smiles"] for m in metadata["molecules"]} < set(SMILES)
    assert metadata["config"]["seed"] == 5
    assert metadata["versions"].keys() == {"numpy", "rdkit", "scipy", "tblite"}
    assert sorted(p.name for p in one.parent.iterdir() if p.name.startswith((".", "one"))) == ["one.npz"]


def test_without_tblite_nothing_is_begun(
    config: ForceFieldData, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(DataError, match="tblite is needed here and not installed"):
        generate(replace(config, path=str(folder / "none.npz")), workers=1, progress=False)
    assert not list(folder.glob("none*"))


@pytest.mark.usefixtures("in_this_process")
def test_another_seed_gives_other_frames(config: ForceFieldData, one: Path, folder: Path) -> None:
    same = generate(replace(config, path=str(folder / "same.npz")), progress=False)
    assert same.read_bytes() == one.read_bytes()
    made, metadata = store.read(generate(replace(config, path=str(folder / "b.npz"), seed=6), progress=False))
    assert not np.isin(made["energy"], store.read(one)[0]["energy"]).any()
    assert metadata["molecules"] != store.read(one)[1]["molecules"]


def test_a_killed_generation_goes_on_with_more_processes_to_the_same_bytes(
    config: ForceFieldData, one: Path, folder: Path
) -> None:
    killed = replace(config, path=str(folder / "killed.npz"))
    script = f"from equiscope.tasks.forcefield.generate import *; generate({killed!r}, workers=1, progress=False)"
    parts = folder / "killed.npz.parts"
    process = subprocess.Popen([sys.executable, "-c", script])
    while not (parts.is_dir() and any(parts.glob("0*.npz"))):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (folder / "killed.npz").exists()
    for shard in list(parts.glob("0*.npz"))[:1]:
        shard.write_bytes(shard.read_bytes()[:-100])
    assert generate(killed, workers=2, progress=False).read_bytes() == one.read_bytes()
    assert not parts.exists()


def test_a_shard_is_made_once_per_configuration(folder: Path) -> None:
    shard = folder / "shard.npz"
    job = Job(Molecule(0, "CCO"), 2, ForceFieldData(), str(shard), "a")
    make_shard(job)
    content, written = shard.read_bytes(), shard.stat().st_ino
    make_shard(job)
    assert shard.stat().st_ino == written
    shard.write_bytes(content[:50] + b"?" + content[51:])
    make_shard(job)
    assert shard.read_bytes() == content
    make_shard(replace(job, config=ForceFieldData(seed=1), fingerprint="b"))
    assert shard.read_bytes() != content


def test_an_existing_file_is_used_or_refused(config: ForceFieldData, one: Path, folder: Path) -> None:
    before = one.stat().st_mtime_ns
    assert generate(config, progress=False) == one
    assert one.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"seed=5 \(asked: 9\)"):
        generate(replace(config, seed=9), progress=False)
    damaged = folder / "damaged.npz"
    content = bytearray(one.read_bytes())
    content[700] ^= 16
    damaged.write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"):
        generate(replace(config, path=str(damaged)), progress=False)


@pytest.mark.usefixtures("in_this_process")
def test_too_many_frames_for_the_molecules(config: ForceFieldData, folder: Path) -> None:
    with pytest.raises(DataError, match="33 frames asked, but 8 molecules with at most 4 frames each give at most 32"):
        generate(replace(config, frames=33, path=str(folder / "no.npz")), progress=False)
    # Eight molecules could give 32, but one of them cannot be embedded.
    with pytest.raises(DataError, match=r"gave 28 of 32 frames.*embedding failed"):
        generate(replace(config, frames=32, path=str(folder / "no.npz")), progress=False)
    assert not (folder / "no.npz").exists()


@pytest.mark.usefixtures("in_this_process")
def test_more_frames_per_molecule_where_molecules_are_few(folder: Path) -> None:
    few = folder / "three.smi"
    few.write_text("CCO\nCCN\nCCF\n")
    config = ForceFieldData(frames=33, min_atoms=3, smiles=str(few), path=str(folder / "three.npz"))
    arrays, metadata = store.read(generate(config, progress=False))
    assert metadata["frames_per_molecule"] == 14
    assert sorted(arrays["frames"].tolist()) == [5, 14, 14]
    with pytest.raises(DataError, match="3 molecules with at most 200 frames"):
        generate(replace(config, frames=601, path=str(folder / "no.npz")), progress=False)


def test_default_paths_tell_configurations_apart() -> None:
    assert str(ForceFieldData().resolved_path()) == "data/forcefield-jitter-4000-seed0.npz"
    others = [
        ForceFieldData(),
        ForceFieldData(frames=100),
        ForceFieldData(seed=1),
        ForceFieldData(sampler="langevin"),
        ForceFieldData(max_atoms=19),
        ForceFieldData(frames_per_molecule=10),
        ForceFieldData(orientation="embedded"),
        ForceFieldData(smiles="my/list.smi"),
    ]
    assert len({c.resolved_path() for c in others}) == len(others)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"sampler": "md"}, "sampler must be one of jitter, langevin, got 'md'"),
        ({"orientation": "random"}, "orientation must be one of haar, embedded"),
        ({"min_atoms": 30}, "got 30 and 20"),
        ({"frames_per_molecule": 0}, "frames_per_molecule must be at least 1"),
    ],
)
def test_wrong_configurations(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ForceFieldData(**wrong)


def test_wrong_number_of_workers() -> None:
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        generate(ForceFieldData(), workers=0)


def test_what_a_user_keeps_among_the_shards_stays(tmp_path):
    parts = tmp_path / "set.npz.parts"
    parts.mkdir()
    for name in ("0000001.npz", "12345678.npz", "mine.npz", "000001.npz", "notes"):
        (parts / name).write_text(name)
    _remove_shards(parts)
    assert sorted(path.name for path in parts.iterdir()) == ["000001.npz", "mine.npz", "notes"]
    for path in parts.iterdir():
        path.unlink()
    _remove_shards(parts)
    assert not parts.exists()
