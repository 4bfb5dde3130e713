"""The words: headline, verdict, warning."""

import pytest

from equiscope.report import sentences
from equiscope.report.crossings import crossings
from equiscope.report.curves import history
from tests.report import synthetic


def final(**kwargs):
    return history([synthetic.run_record(), synthetic.measure(2400, part="final", **kwargs)])


def test_headline_of_a_good_run():
    line = sentences.headline(final(percent=0.37, r2=0.93, width=0.1))
    assert line == (
        "After 2,400 training steps, 0.37 % (95 % interval 0.33–0.41 %) of the model’s loss is there only because it "
        "has not learned rotation symmetry perfectly; the model predicts well (R² 0.93 on molecules it has never "
        "seen), and the value is clearly above numerical noise."
    )


def test_headline_warns_of_a_useless_model_and_of_noise():
    line = sentences.headline(final(percent=1e-9, r2=0.0, distinguishable=False))
    assert "no better than a constant answer" in line
    assert "not distinguishable from numerical noise (noise floor" in line


def test_headline_says_where_few_clusters_carry_the_interval():
    said = "Only 2.7 of 48 independent clusters carry the interval, too few to trust it."
    assert sentences.headline(final(percent=0.4, r2=0.9, effective_clusters=2.7)).endswith(said)
    assert "carry" not in sentences.headline(final(percent=0.4, r2=0.9, effective_clusters=3.1))


def test_units_of_squared_errors():
    def of(task, **kwargs):
        return sentences.squared_unit(
            history([synthetic.run_record(task=task), synthetic.measure(1, percent=1.0, r2=0.5, **kwargs)])
        )

    assert [of(task) for task in ("forcefield", "proteinflow", "voxels", "mine:Task")] == [" (eV/Å)²", " nm²", "", ""]
    assert of("forcefield", loss="l2_norm") == ""


def test_headline_of_an_upper_limit():
    line = sentences.headline(final(percent=0.003, r2=0.9, interval_kind="upper limit", percent_interval=[0, 0.021]))
    assert "at most 0.021 % (95 % upper limit)" in line


def test_headline_without_measurements():
    assert sentences.headline(history([])) == "Nothing has been measured in this run yet."


def test_task_names_its_samples():
    told = history([synthetic.run_record(task="proteinflow"), synthetic.measure(1, percent=1.0, r2=0.9)])
    assert "on protein chains it has never seen" in sentences.headline(told)
    assert sentences.headline(told).startswith("So far, at step 1,")


def found_for(rows):
    return crossings(history([synthetic.measure(s, percent=p, r2=r2) for s, p, r2 in rows]).curves["forces"])


def test_verdicts():
    assert "Skilled crossing at step 20" in sentences.verdict(found_for([(0, 30, 0), (10, 1, 0.2), (20, 1, 0.8)]))
    assert "not with R²" in sentences.verdict(found_for([(0, 30, 0), (10, 1, 0.2), (20, 1, 0.3)]))
    assert "not certain" in sentences.verdict(found_for([(0, 30, 0), (10, 1, 0.2), (20, 1.9, 0.3)]))
    assert "No crossing" in sentences.verdict(found_for([(0, 30, 0)]))


@pytest.mark.parametrize(
    ("r2", "title"), [(0.0, "Collapse"), (-2.0, "Collapse"), (0.3, "Caution"), (None, "Skill unknown")]
)
def test_first_crossing_without_skill_is_called_out(r2, title):
    records = [synthetic.measure(0, percent=30, r2=0.0), synthetic.measure(10, percent=0.1, r2=r2 or 0.0)]
    records[1]["result"]["r2"] = r2
    notice = sentences.crossing_warning(crossings(history(records).curves["forces"]))
    assert notice.title == title
    assert "step 10" in notice.text
    assert ("zero predictor" in notice.text) == (r2 == 0.0)


def test_a_sound_first_crossing_has_no_warning():
    assert sentences.crossing_warning(found_for([(0, 30, 0), (10, 1, 0.8)])) is None


def test_a_run_that_falls_back_to_zero_is_called_a_collapse_at_its_end():
    """A denoiser that had learned something and answers zero in the end: R² 0, percent 0."""
    records = [
        synthetic.measure(0, percent=60, r2=-0.5),
        synthetic.measure(700, percent=3.4, r2=0.33),
        synthetic.measure(2000, percent=0.001, r2=0.01),
    ]
    notice = sentences.crossing_warning(crossings(history(records).curves["forces"]))
    assert notice.title == "Collapse"
    assert "At the end, step 2,000, R² is 0.01: the model is practically the zero predictor" in notice.text


def test_octahedral_share_is_said_to_be_a_lower_bound():
    records = [synthetic.measure(0, percent=3, r2=0.6, group="O")]
    assert "exactly for the octahedral group O" in sentences.headline(history(records))
    assert "lower bound for all rotations of the same grids" in sentences.headline(history(records))
    assert "octahedral" not in sentences.headline(history([synthetic.measure(0, percent=3, r2=0.6)]))
