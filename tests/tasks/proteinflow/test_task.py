"""Tests of the task as runs see it: batches, loss, probes, records."""

import json
import math

import pytest
import torch

from equiscope.decomposition.measure import measure
from equiscope.decomposition.twirled import Twirled
from equiscope.errors import InputError
from equiscope.tasks import build
from equiscope.tasks.proteinflow.flow import clean_estimate, first_pass, flow_loss
from equiscope.tasks.proteinflow.task import MODELS, ProteinFlow, declaration
from tests.tasks.proteinflow.common import make, rotations, small_task, turned


@pytest.fixture(scope="module")
def task() -> ProteinFlow:
    return small_task()


def test_the_task_is_built_by_name_and_refuses_what_it_does_not_know():
    made = build({"task": "proteinflow", "model": {"name": "proteina_equivariant", "size": "nano"}})
    assert isinstance(made, ProteinFlow)
    assert made.settings.model == "proteina_equivariant"
    with pytest.raises(InputError, match=r"prepare\(\)"):
        made.training_batch(0)
    with pytest.raises(InputError, match="zeros, first_pass"):
        ProteinFlow.from_config({"track": {"self_conditioning": "magic"}})
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        ProteinFlow.from_config({"track": {"times": [1.0]}})
    with pytest.raises(InputError, match=r"no setting \['depth'\]"):
        ProteinFlow.from_config({"model": {"name": "proteina", "depth": 3}}).build_model()


def test_settings_of_other_tasks_are_refused():
    message = r"unknown data settings \['frames'\] for task 'proteinflow'; the known ones are .*'fraction'"
    with pytest.raises(InputError, match=message):
        ProteinFlow.from_config({"data": {"frames": 4}})
    with pytest.raises(InputError, match="seed must be at least 0"):
        ProteinFlow.from_config({"seed": -1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"augment": 1.5}, "augment must be a share between 0 and 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"loss": {"self_conditioning": 2}}, r"loss\.self_conditioning must be a share between 0 and 1, got 2.0"),
        ({"loss": {"distogram": -1}}, r"loss\.distogram must be at least 0, got -1.0"),
    ],
)
def test_impossible_numbers_are_refused_before_any_data_is_read(config, message):
    with pytest.raises(InputError, match=message):
        ProteinFlow.from_config(config)


def test_runs_from_before_there_was_a_seed_of_the_data_keep_the_split_of_their_own():
    seeds = ({}, 3), ({"seed": 0}, 0), ({"seed": None}, 3)
    for data, expected in seeds:
        assert ProteinFlow.from_config({"seed": 3, "data": data}).settings.held_out_seed == expected


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_random_state_alone(task):
    state = torch.random.get_rng_state()
    first, second = task.build_model(), task.build_model()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = small_task(seed=4).build_model()
    assert not torch.equal(first.read_noisy.weight, other.read_noisy.weight)


def test_the_training_loss_is_the_velocity_error_with_and_without_a_first_estimate(task):
    model = task.build_model()
    seen = set()
    for step in range(6):
        batch = task.training_batch(step)
        flag = bool(batch["self_condition"][0])
        seen.add(flag)
        given = {**batch, "x_sc": first_pass(model, batch)} if flag else batch
        expected = flow_loss(model(given)["velocity"], batch["velocity"], batch["mask"])
        losses = task.training_loss(model, batch)
        assert losses["loss"].item() == pytest.approx(expected.mean().item(), rel=1e-6)
        weighted = (expected * (1 - batch["t"]) ** 2).mean().item()
        assert losses["clean"].item() == pytest.approx(weighted, rel=1e-6)
        losses["loss"].backward()
    assert seen == {True, False}


@pytest.mark.parametrize("name", MODELS)
def test_training_on_one_batch_lowers_its_loss_below_that_of_the_zero_velocity(name):
    task = small_task(model={"name": name, "width": 32})
    model = task.build_model()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    batch = task.training_batch(0)
    zero = flow_loss(torch.zeros_like(batch["velocity"]), batch["velocity"], batch["mask"]).mean().item()
    for _ in range(80):
        loss = task.training_loss(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * zero


def test_probes_are_one_per_flow_time_and_two_pooled_with_one_headline(task):
    track, final = task.probes("track"), task.probes("final")
    assert [p.name for p in track] == ["t=0", "t=0.8", "pooled", "pooled, unweighted"]
    assert [p.name for p in final] == [*(p.name for p in track), "pooled, self-conditioned"]
    assert [p.name for p in track if p.headline] == ["pooled"]
    for probe in track[:2]:
        assert all((batch["t"] == float(probe.name[2:])).all() for batch in probe.batches)
    chains = [set(torch.cat([b["chain"] for b in p.batches]).tolist()) for p in (track[0], final[0])]
    trained = set(task.data.clusters.labels[task.data.parts["train"]].tolist())
    assert (len(chains[0]), len(chains[1])) == (6, 8)
    assert chains[0].isdisjoint(chains[1])
    assert trained.isdisjoint(chains[0] | chains[1])
    with pytest.raises(InputError, match="track"):
        task.probes("test")


def test_probe_batches_are_the_same_whenever_they_are_made(task):
    for first, second in zip(task.probes("track"), small_task().probes("track"), strict=True):
        for a, b in zip(first.batches, second.batches, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_chain_has_the_same_noise_at_every_flow_time(task):
    early, late = (probe.batches[0] for probe in task.probes("track")[:2])
    noise = late["x_t"] - 0.8 * late["velocity"]
    assert torch.allclose(early["x_t"], noise, atol=1e-5)


def test_pooled_probes_have_stratified_times_of_the_training_law_and_ids_of_their_own(task):
    pooled = next(p for p in task.probes("final") if p.headline)
    t = torch.cat([b["t"] for b in pooled.batches]).double().sort().values
    law = 0.02 * t + 0.98 * t**1.9
    count = len(t)
    assert count == 24
    assert torch.equal((law * count).long(), torch.arange(count))
    ids = torch.cat([b["id"] for b in pooled.batches])
    assert len(ids.unique()) == count


def test_the_unweighted_probe_measures_the_predicted_chain(task):
    probes = {p.name: p for p in task.probes("track")}
    model = make("proteina")
    plain, weighted = probes["pooled, unweighted"], probes["pooled"]
    for batch, source in zip(plain.batches, weighted.batches, strict=True):
        t = source["t"][:, None, None]
        assert torch.allclose(batch["clean"], source["x_t"] + (1 - t) * source["velocity"], atol=1e-6)
        answer = plain.forward(model, batch)["clean"]
        expected = clean_estimate(batch["x_t"], model(batch)["velocity"], batch["t"])
        assert torch.equal(answer, expected)


def test_measured_weighting_over_flow_times_is_as_documented():
    """The same predictions, weighted by 1/(1 − t)² or not: the totals are the two means by hand."""
    task = small_task()
    model = make("proteina")
    probes = {p.name: p for p in task.probes("track")}
    weighted = measure(model, probes["pooled"].batches, probes["pooled"].declaration, rotations="D2")
    clean = probes["pooled, unweighted"]
    unweighted = measure(model, clean.batches, clean.declaration, forward=clean.forward, rotations="D2")
    errors, times = [], []
    for batch in probes["pooled"].batches:
        with torch.no_grad():
            errors.append(flow_loss(model(batch)["velocity"], batch["velocity"], batch["mask"]).double())
        times.append(batch["t"].double())
    error, t = torch.cat(errors), torch.cat(times)
    assert weighted.loss_as_given == pytest.approx(error.mean().item(), rel=1e-4)
    assert unweighted.loss_as_given == pytest.approx((error * (1 - t) ** 2).mean().item(), rel=1e-4)


@pytest.mark.parametrize("part", ["track", "final"])
def test_the_equivariant_twin_is_under_the_noise_floor_in_every_probe(part):
    task = small_task(model={"name": "proteina_equivariant"})
    model = make("proteina_equivariant")
    for probe in task.probes(part):
        result = measure(model, probe.batches, probe.declaration, forward=probe.forward, rotations="D2")
        assert not result.distinguishable, (probe.name, result.percent, result.noise_floor_percent)
        assert result.percent < 1e-6
        assert result.total > 0.1


def test_the_raw_model_is_measured_far_above_the_noise_floor_with_the_share_of_a_random_head():
    """At the start the output is a random linear map of features: nearly all of it is equivariance error."""
    task = small_task()
    model = task.build_model()
    for probe in task.probes("track"):
        result = measure(model, probe.batches, probe.declaration, forward=probe.forward, rotations="D2")
        assert result.distinguishable
        assert 2 < result.percent < 40
        assert set(result.rotated) >= {"x_t", "x_sc"}
        assert "t" in result.held_fixed


def test_noise_that_is_not_turned_along_would_be_counted_as_equivariance_error(task):
    """The planted mistake: fresh noise in every pass makes an exactly equivariant model look bad."""
    probe = task.probes("track")[1]
    generator = torch.Generator().manual_seed(0)
    model = make("proteina_equivariant")

    def fresh(net, batch):
        noise = torch.randn(batch["x_t"].shape, generator=generator)
        return net({**batch, "x_t": batch["x_t"] + 0.05 * noise})

    from equiscope.errors import RandomModelError

    with pytest.raises(RandomModelError):
        measure(model, probe.batches, probe.declaration, forward=fresh)


def test_self_conditioning_coordinates_are_turned_along_as_an_input(task):
    model = make("proteina_equivariant")
    # The estimate in the frame as given, computed once.
    batches = [{**batch, "x_sc": first_pass(model, batch)} for batch in task.probes("track")[1].batches]
    assert all(batch["x_sc"].abs().max() > 0.1 for batch in batches)
    assert not measure(model, batches, declaration()).distinguishable
    # Not turned along they break the symmetry of an equivariant model, and the measure sees it.
    held = declaration()
    wrong = type(held)(
        inputs={"x_t": held.inputs["x_t"]},
        outputs=held.outputs,
        fixed=("t", "x_sc"),
        mask="mask",
        clusters="chain",
        ids="id",
    )
    assert measure(model, batches, wrong).distinguishable


def test_tracking_with_a_first_pass_measures_the_two_pass_map():
    task = small_task(track={"self_conditioning": "first_pass"})
    model = make("proteina")
    probe = task.probes("track")[1]
    batch = probe.batches[0]
    twice = model({**batch, "x_sc": first_pass(model, batch)})["velocity"]
    assert torch.equal(probe.forward(model, batch)["velocity"], twice)
    assert [p.name for p in task.probes("final")] == [p.name for p in task.probes("track")]


def test_a_twirled_model_is_symmetric_under_the_group_it_is_averaged_over(task):
    batch = task.probes("track")[1].batches[0]
    model = Twirled(make("proteina").double(), declaration(), rotations="T", shift=False)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)).expand(len(wide["t"]), 3, 3)
    with torch.no_grad():
        answer = model(turned(wide, half_turn))["velocity"] @ half_turn
        assert torch.allclose(answer, model(wide)["velocity"], atol=1e-9)
        other = rotations(len(wide["t"]))
        assert not torch.allclose(model(turned(wide, other))["velocity"] @ other, model(wide)["velocity"], atol=1e-6)


def test_the_record_of_the_data_is_plain_and_complete(task):
    facts = json.loads(json.dumps(task.describe()))
    assert facts["units"] == "nm"
    assert sum(facts["parts"].values()) == facts["chains"]
    assert "CC0" in facts["licence"]
    assert "6-mers" in facts["clusters_by"]
    assert math.isclose(sum(facts["orientation"]["eigenvalues"]), 1, rel_tol=1e-6)


def test_the_reference_has_the_flow_times_of_the_probes():
    reference = ProteinFlow.from_config({}).reference()
    assert list(reference["points"]) == [f"t={t:g}" for t in ProteinFlow.from_config({}).settings.track.times]
    for points in reference["points"].values():
        steps = [step for step, _ in points]
        assert steps == sorted(steps)
    assert reference["points"]["t=0.9"][-1] == [1_100_000, 6.5]
