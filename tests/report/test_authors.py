"""The shipped curves of the authors: their known figures, the recipe behind them, and their verdicts by our rules."""

import numpy as np

from equiscope.report import authors, paper
from equiscope.report.claims import RULES
from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED


def curves():
    return {curve["name"]: np.array([point[:2] for point in curve["points"]]) for curve in authors.data()["curves"]}


def test_first_crossings_and_ends_of_the_voxel_models():
    found = curves()
    ends = {name: round(float(points[-1, 1]), 1) for name, points in found.items() if name.startswith("VoxMol")}
    assert (ends["VoxMol 111M"], ends["VoxMol 28M"], ends["VoxMol 7M"]) == (12.9, 20.3, 18.7)
    first = {name: points[points[:, 1] <= 2][:1, 0].tolist() for name, points in found.items()}
    assert first["VoxMol 111M, 1 % of the data"] == [4536]
    assert first["VoxMol 111M, 10 % of the data"] == [6561]
    assert first["VoxMol 111M, 25 % of the data"] == [7288]
    assert first["VoxMol 111M, 50 % of the data"] == first["VoxMol 111M"] == []
    # The recipe on the last line of their file of all data: terms 3 and 1, four rotations.
    assert round(100 * 4 / 3 * 6.256276719796006e-06 / 6.446292536566034e-05, 1) == ends["VoxMol 111M"]
    assert "4,536" in paper.TASKS["voxels"].crossing
    for words in ("12.9", "20.3", "18.7"):
        assert words in paper.TASKS["voxels"].end


def test_every_curve_is_in_order_and_of_a_task_of_the_paper():
    for curve in authors.data()["curves"]:
        steps = [point[0] for point in curve["points"]]
        assert steps == sorted(set(steps))
        assert curve["task"] in paper.TASKS
        assert all(point[2] is None or point[2] <= 1 for point in curve["points"])
    assert "licence" in authors.data()["source"]


def test_verdicts_by_our_rules():
    found = {claim.key: claim for claim in authors.judged()}
    assert list(found) == list(RULES)
    verdicts = {key: claim.verdict for key, claim in found.items()}
    assert verdicts["quick"] == verdicts["penalty"] == DIFFERS
    assert set(verdicts.values()) == {DIFFERS, UNDECIDED}
    rows = {row.run: row.verdict for row in found["quick"].rows}
    assert rows["forcefield/EScAIP 6M, seed 1"] == AGREES
    assert rows["proteinflow/Proteina 60M, t = 0.9"] == rows["voxels/VoxMol 111M"] == DIFFERS
    # One seed a size decides nothing of robustness, a plane of one batch nothing of its roughness.
    assert {row.verdict for row in found["robust"].rows} == {UNDECIDED}
    assert all("refused" in row.interval for row in found["easier"].rows)
    assert all(row.change for claim in found.values() for row in claim.rows)


def test_voxels_have_the_skill_of_their_own_grid():
    run = next(run for run in authors.evidence().runs if run.name == "voxels/VoxMol 111M")
    np.testing.assert_allclose(run.judged.skill, 1 - (1 - run.judged.r2) / 0.985, rtol=1e-12)


def test_the_crossing_of_the_force_field_comes_before_its_skill():
    run = next(run for run in authors.evidence().runs if run.name.endswith("seed 1"))
    assert run.found.first.step == 2000
    assert run.found.first.r2 < 0.2
    assert run.found.skilled.step == 10_000
