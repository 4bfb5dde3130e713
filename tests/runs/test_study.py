"""Planning a study: which runs, under which names, with whose word on a setting counting last."""

import pytest

from equiscope.errors import InputError
from equiscope.runs.config import configuration, study_definition
from equiscope.runs.study import member, members, merged, run_name, study_folder
from equiscope.runs.study_run import STUDIES
from equiscope.runs.sweep import training_overrides


def _study(**changes):
    made = {"name": "s", "base": ["trainer.max_steps=7"], "seeds": [0, 1], "points": {"forcefield": {"a": [], "b": []}}}
    return {**made, **changes}


def test_points_times_seeds_in_order_with_one_thread():
    planned = members(_study(points={"forcefield": {"a": [], "b": ["batch_size=4"]}}), "forcefield")
    assert [(m.point, m.seed) for m in planned] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [m.config["batch_size"] for m in planned] == [32, 32, 4, 4]
    assert all(m.config["threads"] == 1 and m.config["trainer"]["max_steps"] == 7 for m in planned)
    assert len({m.name for m in planned}) == 4


def test_a_point_has_further_seeds_where_the_study_gives_it_more():
    planned = members(_study(seeds=[0], more={"b": [1, 0, 2]}), "forcefield")
    assert [(m.point, m.seed) for m in planned] == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
    told = study_definition("efficiency", ["+study.more={unet_tied @ 2e-3:[1,2]}"])
    assert told["more"] == {"unet_tied @ 2e-3": [1, 2]}
    with pytest.raises(InputError, match="'c', which is no point; those of forcefield are a, b"):
        members(_study(more={"c": [1]}), "forcefield")


def test_no_point_of_the_learning_rates_is_left_to_the_default_of_the_run():
    for points in study_definition("efficiency")["points"].values():
        for name, overrides in points.items():
            assert [float(one.partition("=")[2]) for one in overrides if one.startswith("optimizer.lr=")] == [
                float(name.partition("@")[2])
            ]


def test_the_points_word_counts_last_and_the_users_before_it():
    study = _study(seeds=[0], points={"forcefield": {"a": ["batch_size=4"]}})
    (only,) = members(study, "forcefield", ["batch_size=8", "trainer.max_steps=9", "threads=2"])
    assert only.config["batch_size"] == 4
    assert only.config["trainer"]["max_steps"] == 9
    assert only.config["threads"] == 2


def test_a_run_is_named_by_what_changes_its_figures():
    base = configuration(["task=forcefield", "run=x"])
    same = configuration(["task=forcefield", "run=y", "threads=1", "root=elsewhere"])
    other = configuration(["task=forcefield", "run=x", "optimizer.lr=0.5"])
    assert run_name(base) == run_name(same) != run_name(other)
    assert run_name(base).startswith("edge_transformer-s0-")
    assert member("p", 0, ["task=forcefield"]).name == run_name(base)


@pytest.mark.parametrize("task", ["forcefield", "proteinflow"])
@pytest.mark.parametrize("name", [*STUDIES, "efficiency"])
def test_every_shipped_study_plans_and_runs_are_shared(name, task):
    study = study_definition(name, ["study.seeds=[0]"])
    assert study["name"] == name
    planned = members(study, task)
    assert len({m.name for m in planned}) == len(planned)
    (default,) = members({**_study(seeds=[0], base=study["base"]), "points": {task: {"default": []}}}, task)
    assert default.name in {m.name for m in planned}


def test_seeds_and_points_can_be_changed_from_the_command_line():
    assert study_definition("model_size", ["study.seeds=[4,5]"])["seeds"] == [4, 5]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: study_definition("nothing"), "nothing"),
        (lambda: study_definition("model_size", ["study.sedes=[1]"]), "sedes"),
        (lambda: members(_study(), "voxels"), "no points for task 'voxels'; it has them for forcefield"),
        (lambda: members(_study(points={"forcefield": {"a": ["nonsense=1"]}}), "forcefield"), "point 'a': .*nonsense"),
        (lambda: merged(["batch_size"]), "'batch_size' is no setting"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(attempt, message):
    with pytest.raises(InputError, match=message) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_overrides_of_the_runs_are_told_from_those_of_the_study_and_of_hydra():
    given = ["task=forcefield", "+study=x", "study.seeds=[1]", "+point=0,1", "hydra/launcher=ray",
             "++hydra.sweep.dir=a", "model=escaip", "+new.key=1", "hydrate=1"]  # fmt: skip
    assert training_overrides(given) == ["model=escaip", "+new.key=1", "hydrate=1"]


def test_the_last_word_on_a_key_counts():
    assert merged(["a=1", "b=2"], ["+a=3"], ["c=4"]) == ["b=2", "+a=3", "c=4"]


def test_folder():
    assert study_folder("runs", "voxels", "model_size").parts == ("runs", "studies", "voxels-model_size")
