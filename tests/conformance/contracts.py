"""What every task, reader, loss and analysis must keep to; a newcomer is held to the same by its name alone."""

import importlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from equiscope import records, tasks
from equiscope.decomposition.losses import LOSSES, invariant_under
from equiscope.decomposition.losses import loss as find_loss
from equiscope.errors import EquiscopeError, InputError
from equiscope.report import kinds as shown
from equiscope.report.chart import Chart
from equiscope.runs.analyse import analyse
from equiscope.runs.kinds import AnalysisSettings, analyses
from equiscope.runs.tracker import Tracking, measure_probe
from equiscope.symmetry.actions import action
from equiscope.symmetry.rotations import uniform_keyed
from equiscope.tasks.datasets import catalogue, stream

#: Sections of a configuration that belong to the run, not to its task.
OF_THE_RUN = {"trainer", "schedule", "optimizer", "logger", "track", "final"}
#: Formats of which any beginning of a file is a whole file.
ANY_BEGINNING = {"smiles"}
#: What no other setting of an analysis may be called: the command's own.
OF_THE_COMMAND = {"folder", "kinds", "at", "probe", "device", "run", "traceback"}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain(value):
    """Nothing is changed by being written as JSON and read again."""
    assert records.plain(value) == value
    assert json.loads(json.dumps(value, allow_nan=False)) == value


# Tasks.
def check_task(config):
    """A task, by the small configuration of a run of it."""
    refuses_unknown_settings(config)
    task, again, other = (
        tasks.build({**config, "seed": config["seed"] + more}, trust=True) for more in (0, 0, 1)
    )
    assert tasks.words(task.name).title
    for made in (task, again, other):
        made.prepare(progress=False)
    is_a_function_of_seed_and_step(task, again, other)
    net = task.build_model()
    loss = task.training_loss(net, task.training_batch(0))
    assert all(value.numel() == 1 and bool(value.isfinite()) for value in loss.values())
    loss["loss"].backward()
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    assert slopes
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    probes_are_declared_and_measured(task, again, task.build_model().eval())
    is_measured_on_the_same_samples(task, other)
    records.plain(task.describe())
    reference = records.plain(task.reference())
    assert {"label", "points", "source"} <= reference.keys()
    if hasattr(task, "pictures"):
        for picture in records.plain(task.pictures(net)):
            assert {"title", "panels"} <= picture.keys()


def refuses_unknown_settings(config):
    own = [name for name, value in config.items() if isinstance(value, Mapping) and name not in OF_THE_RUN]
    assert own
    for section in own:
        with pytest.raises(InputError, match="nonsense"):
            tasks.build({**config, section: {**config[section], "nonsense": 1}}, trust=True)


def is_a_function_of_seed_and_step(task, again, other):
    """Weights and batches, in whatever order they are asked for."""
    weights = [made.build_model().state_dict() for made in (task, again, other)]
    assert same(*weights[:2])
    assert not same(weights[0], weights[2])
    steps = (0, 1, 7, 30)
    batches = {step: task.training_batch(step) for step in steps}
    torch.rand(3)
    for step in reversed(steps):
        assert same(again.training_batch(step), batches[step]), f"step {step} is another batch when asked again"
    assert not same(batches[0], batches[1])
    assert not same(batches[0], other.training_batch(0))


def probes_are_declared_and_measured(task, again, net):
    track, final = ({probe.name: probe for probe in task.probes(part)} for part in ("track", "final"))
    assert track.keys() <= final.keys()
    for probes in (track, final):
        assert sum(probe.headline for probe in probes.values()) == 1
    for name, probe in track.items():
        twin = next(p for p in again.probes("track") if p.name == name)
        assert alike(probe.batches, twin.batches)
        assert not alike(probe.batches, final[name].batches)
    for probe in {**final, **track}.values():
        # A floating field that is neither rotated nor a target nor held fixed stops the measure.
        result = measure_probe(net, probe, Tracking(rotations="D2"))
        assert math.isfinite(result.percent)
        crossed = probe.design.redraw is not None
        assert result.equivariance >= 0 or crossed
        assert crossed or result.samples == sum(len(next(iter(batch.values()))) for batch in probe.batches)


def is_measured_on_the_same_samples(task, other):
    """Of a run that differs in its seed alone: else replicates would compare samples, not trainings."""
    for part in ("track", "final"):
        for probe, twin in zip(task.probes(part), other.probes(part), strict=True):
            assert alike(probe.batches, twin.batches), f"the held-out samples of {probe.name} depend on the run's seed"


def alike(some, others):
    return len(some) == len(others) and all(map(same, some, others))


# Readers.
def check_reader(name, path, settings):
    """A format of the catalogue, by the smallest file of it (or a folder)."""
    with pytest.raises(InputError, match="nonsense"):
        catalogue.describe(name, str(path), {**settings, "nonsense": 1}, stream.Rules(), stream.Sample())
    found = described(name, path, settings)
    assert str(found)
    plain(found.to_dict())
    if hasattr(source := made(name, path, settings), "blocks"):
        yields_the_same_again(source, found)
    whole = counts(found)
    # Cut within a line, should it have any.
    for damaged in (b"", lambda content: content[: len(content) // 2].rstrip()[:-1]):
        with spoiled(path, damaged):
            found, words = outcome(name, path, settings)
            if found is None:
                assert Path(path).name in words or damaged_file(path).name in words, words
                continue
            taken, left_out = counts(found)
            assert taken < whole[0]
        assert left_out > whole[1] or name in ANY_BEGINNING, "half a file was read as a whole one"


def made(name, path, settings):
    return catalogue._made(name, str(path), settings)


def described(name, path, settings):
    return catalogue.describe(name, str(path), settings, stream.Rules(), stream.Sample())


def outcome(name, path, settings):
    """(description, "") or (None, the words of a typed error); any other error is a fault."""
    try:
        return described(name, path, settings), ""
    except EquiscopeError as error:
        return None, str(error)


def counts(found):
    """(records taken, records left out) of a description, with their reasons."""
    facts = found.to_dict()
    reasons = {**facts.get("rejected", facts.get("counts", {})), **facts.get("remarks", {})}
    assert all(isinstance(why, str) and isinstance(count, int) and count > 0 for why, count in reasons.items())
    (taken,) = (facts[name] for name in ("frames", "molecules", "chains") if name in facts)
    assert taken > 0
    return taken, sum(count for why, count in reasons.items() if why not in ("kept", "files"))


def yields_the_same_again(source, found):
    rejected: list[Counter[str]] = [Counter(), Counter()]
    first, second = (list(source.blocks(counted)) for counted in rejected)
    assert rejected[0] == rejected[1]
    assert sum(map(len, first)) == found.frames
    for block, twin in zip(first, second, strict=True):
        frames, atoms = len(block), len(block.numbers)
        assert block.group
        assert block.positions.shape == (frames, atoms, 3)
        for label, shape in (("energy", ()), ("forces", (atoms, 3)), ("stress", (3, 3)), ("cell", (3, 3))):
            value = getattr(block, label)
            assert value is None or value.shape == (frames, *shape)
        assert (block.positions == twin.positions).all()
    units = source.units()
    assert units["known from"]
    assert {"positions"} <= units.keys()


def damaged_file(path):
    """The file itself, or the largest of a folder."""
    files = [Path(path)] if Path(path).is_file() else [p for p in Path(path).rglob("*") if p.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


class spoiled:
    """The file with other content, for as long as this lasts."""

    def __init__(self, path, damage):
        self.file, self.damage = damaged_file(path), damage

    def __enter__(self):
        self.content = self.file.read_bytes()
        self.file.write_bytes(self.damage(self.content) if callable(self.damage) else self.damage)

    def __exit__(self, *_):
        self.file.write_bytes(self.content)


# Losses.
def check_loss(name, documented):
    """A loss of the register; ``documented`` is the text in which its name must stand."""
    loss = find_loss(name)
    assert LOSSES[name] is loss
    assert loss.name == name
    assert f'`"{name}"`' in documented, f"no page says that there is a loss {name!r}"
    generator = torch.Generator().manual_seed(0)
    for width in (3, 5):
        predictions, target = pairs(loss, width, generator)
        is_convex(loss, predictions, target)
        has_finite_slopes(loss, predictions, target)
    if not loss.classes:
        invariance_is_as_claimed(loss, generator)


def pairs(loss, width, generator):
    """Predictions (passes, rows, 1, width), as the loss averages them, and the labels of the rows."""
    predictions = loss.prepare(torch.randn(24, 16, 1, width, generator=generator, dtype=torch.float64))
    if loss.classes:
        return predictions, torch.randint(0, width, (16, 1, 1), generator=generator)
    return predictions, torch.randn(16, 1, width, generator=generator, dtype=torch.float64)


def is_convex(loss, predictions, target):
    value = loss.per_row(predictions[0], target)
    assert value.shape == (16, 1)
    assert (value >= -1e-12).all()
    for share in (0.1, 0.5, 0.8):
        for a, b in zip(predictions[::2], predictions[1::2], strict=True):
            between = loss.per_row(share * a + (1 - share) * b, target)
            chord = share * loss.per_row(a, target) + (1 - share) * loss.per_row(b, target)
            assert (between <= chord + 1e-12).all()
    middle = predictions.mean(0)
    gap = torch.stack([loss.per_row(p, target) for p in predictions]).mean(0) - loss.per_row(middle, target)
    assert (gap >= -1e-12).all()
    assert gap.max() > 1e-6
    if loss.exact:
        # What is exact for any number of passes is so because the gap is the variance, whatever the label.
        torch.testing.assert_close(gap, (predictions - middle).square().mean((0, -1)))


def has_finite_slopes(loss, predictions, target):
    """Also where the prediction is the label."""
    places = [predictions[0], *([] if loss.classes else [target])]
    for place in places:
        leaf = place.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss.per_row(leaf, target).sum(), leaf)
        assert slope.isfinite().all()


def invariance_is_as_claimed(loss, generator):
    a, b = torch.randn(2, 50, 1, 3, generator=generator, dtype=torch.float64)
    moved = False
    for turn in uniform_keyed("O3", 0, range(20)):
        before, after = loss.per_row(a, b), loss.per_row(a @ turn.mT, b @ turn.mT)
        moved |= not torch.allclose(before, after, rtol=1e-9)
    assert moved != loss.invariant, f"{loss.name} says invariant={loss.invariant}"
    assert invariant_under(loss, action("1o"), "SO3") == loss.invariant
    assert invariant_under(loss, action("0e"), "SO3")


# Analyses.
def check_analysis(name, run, steps):
    """An analysis, on a trained run at two of its steps."""
    assert name in shown.kinds(), f"report/kinds/{name}.py is missing: nothing shows what the analysis {name} records"
    settings_are_typed_and_recorded(name)
    with pytest.raises(InputError, match="unknown setting 'nonsense'"):
        analyse(run.path, [name], at=steps, changes={"nonsense": 1})
    found = [record for record in analyse(run.path, [name], at=steps) if record["analysis"] == name]
    assert [record["step"] for record in found] == list(steps)
    before = run.records.read_bytes()
    for record in found:
        plain(record["values"])
        again = analyses()[name].settings(**record["settings"])
        assert records.plain(again.recorded()) == record["settings"]
    analyse(run.path, [name], at=steps)
    assert run.records.read_bytes() == before, "what is recorded was made again"
    book = records.read(run.records)
    for some in (book, [r for r in book if r["kind"] != "analysis" or (r["analysis"], r["step"]) == (name, steps[0])]):
        is_shown(name, some)


def settings_are_typed_and_recorded(name):
    analysis = analyses()[name]
    default = analysis.settings()
    assert isinstance(default, AnalysisSettings)
    for one in fields(default):
        assert one.name not in OF_THE_COMMAND
        assert "help" not in one.metadata or one.metadata["help"]
        other = replace(default, **{one.name: another(getattr(default, one.name))})
        assert other.recorded() != default.recorded(), f"records do not tell {one.name} apart"
    for broken in ({"samples": 1}, {"part": "train"}):
        with pytest.raises(InputError):
            analysis.settings(**broken)


def another(value):
    """Of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"track": "final", None: 7}.get(value, (value, "another")) if not isinstance(value, tuple) else (*value, "x")


def is_shown(name, book):
    """Words, tables and chart of its records."""
    (section,) = (section for section in shown.sections(book) if section.name == name)
    assert section.kind.title
    assert section.lead.strip()
    assert section.tables
    for table in section.tables:
        assert table.rows
        assert all(len(row) == len(table.head) and all(isinstance(cell, str) for cell in row) for row in table.rows)
    chart = section.chart
    if chart is not None:
        assert isinstance(chart, Chart)
        assert section.kind.caption
    assert section.kind.title in shown.summary(book)


def registered(package: ModuleType, several: str) -> Iterator[str]:
    """What the files of a package are named for: each for one thing, or for those in its dict ``several``."""
    for file in sorted(Path(package.__file__).parent.glob("*.py")):
        if file.stem != "__init__":
            yield from getattr(importlib.import_module(f"{package.__name__}.{file.stem}"), several, (file.stem,))
