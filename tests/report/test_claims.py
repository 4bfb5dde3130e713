"""The rows behind each verdict: what they say, and how verdicts combine; the rules themselves are in test_verdicts."""

import numpy as np
import pytest

from equiscope.report.claims import claims
from equiscope.report.claims_analyses import landscape_rows, relation_rows
from equiscope.report.efficiency import log_ratio
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, UNDECIDED, Row, combined, gather
from tests.report import synthetic
from tests.report.test_evidence import renamed, symmetric_run
from tests.report.test_page import write


def curve_run(percents, r2s, steps=(0, 100, 1000, 12000), width=0.05, name="a", **changes):
    """A force-field run of which percent and R² at a few steps are given; the last is also the final figure."""
    records = [synthetic.run_record(name=name, **changes), synthetic.data_record()]
    for step, percent, r2 in zip(steps, percents, r2s, strict=True):
        records.append(synthetic.measure(step, percent=percent, r2=r2, width=width))
        records.append({"kind": "train", "step": step + 1, "seconds": 0.1 * (step + 1), "loss": 1.0})
    records.append(synthetic.measure(steps[-1], part="final", percent=percents[-1], r2=r2s[-1], width=width))
    return [*records, {"kind": "end", "step": steps[-1]}]


PAIR = "equivariance error ~ weight variance"


def judged(place, *runs):
    """key -> claim, of these runs."""
    folders = [write(place / str(number), run) for number, run in enumerate(runs)]
    return {claim.key: claim for claim in claims(gather(folders))}


def test_the_claims_in_the_order_of_the_abstract(tmp_path):
    found = judged(tmp_path, synthetic.force_field_run(), synthetic.flow_run())
    assert list(found) == ["measure", "quick", "robust", "easier", "penalty", "efficiency", "relations"]
    assert all(claim.says and claim.rule for claim in found.values())
    assert found["easier"].verdict == found["relations"].verdict == "missing: forcefield; proteinflow"
    assert any("voxels" in line for line in found["quick"].missing)


def test_penalty_names_the_worst_probe_of_a_skilled_model(tmp_path):
    flow = synthetic.flow_run()
    for record in flow:
        if record["kind"] == "measure":
            record["result"]["r2"] = min(0.9, record["step"] / 1000)
    rows = judged(tmp_path, flow)["penalty"].rows
    assert rows[1].what == "the same at its worst probe, t=0.6"
    assert rows[1].verdict == DIFFERS
    assert "R² 0.90" in rows[1].ours


def test_rows_say_what_was_run_and_what_would_change_the_verdict(tmp_path):
    found = judged(tmp_path, curve_run((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9)))
    (row,) = found["quick"].rows
    assert row.ran == "edge_transformer (nano), 59,203 parameters, 12,000 steps, seed 0"
    assert "under 2 % from step 10,000 on" in row.change
    assert found["quick"].summary == "0 of 1 decided rows agree"


def test_parts_that_do_not_add_up_and_negative_errors_differ(tmp_path):
    good = judged(tmp_path / "good", synthetic.force_field_run())["measure"]
    assert [row.verdict for row in good.rows] == [""]
    assert good.verdict == "missing: proteinflow; forcefield; voxels"
    broken = synthetic.force_field_run()
    next(r for r in broken if r["kind"] == "measure")["result"]["twirled"] *= 1.01
    assert judged(tmp_path / "broken", broken)["measure"].verdict == DIFFERS
    negative = synthetic.force_field_run()
    record = next(r for r in negative if r["kind"] == "measure")
    record["result"]["percent_interval"] = [-2.0, -1.0]
    assert judged(tmp_path / "negative", negative)["measure"].verdict == DIFFERS


def test_symmetric_models_are_not_asked_whether_they_learn(tmp_path):
    found = judged(tmp_path, synthetic.force_field_run(), symmetric_run())
    assert [row.run for row in found["quick"].rows] == ["forcefield/demo"]
    assert [row.run for row in found["measure"].rows] == ["2 runs"]


def row(verdict, task="a", what="b"):
    return Row(task, "", what, "", "", "", verdict)


def test_verdicts_combine():
    rows = [row(verdict) for verdict in (AGREES, UNDECIDED, DIFFERS)]
    assert combined(rows) == DIFFERS
    assert combined(rows[:2]) == AGREES
    assert combined(rows[1:2]) == combined([]) == UNDECIDED
    assert combined([row(EQUAL), row("")]) == EQUAL
    assert combined([row(EQUAL), row(AGREES)]) == AGREES
    assert combined([row("", "c")], ["a", "c"]) == "missing: a; c"
    assert combined(rows[:1], ["a", "c"]) == "missing: c"
    assert combined(rows[1:2], ["a", "c"]) == UNDECIDED
    assert combined([rows[0], row(UNDECIDED, "c")], ["a", "c"]) == UNDECIDED
    assert combined(rows, ["a", "c"]) == DIFFERS
    sizes = [row(AGREES, "a", "x"), row(AGREES, "a", "y")]
    assert combined(sizes[:1], ["a x", "a y"], lambda one: f"{one.task} {one.what}") == "missing: a y"
    assert combined(sizes, ["a x", "a y"], lambda one: f"{one.task} {one.what}") == AGREES
    assert renamed([{"kind": "run"}], name="x") == [{"kind": "run", "name": "x"}]


def relation(pearson, partial, effective=12.0, pair=PAIR):
    made = {
        key: {"value": sum(limits) / 2, "low": limits[0], "high": limits[1], "effective": effective}
        for key, limits in (("pearson", pearson), ("partial", partial))
    }
    values = {"points": 14, **made}
    return {"kind": "analysis", "analysis": "relations", "probe": "forces", "pair": pair, "step": 9, "values": values}


def analysed(place, *records):
    return gather([write(place / "run", [*synthetic.force_field_run(), *records])])


@pytest.mark.parametrize(
    ("pearson", "partial", "effective", "verdict"),
    [
        ((0.8, 0.99), (0.2, 0.8), 12, AGREES),
        ((0.8, 0.99), (-0.5, 0.4), 12, DIFFERS),
        ((0.8, 0.99), (-0.5, 0.4), 4, UNDECIDED),
        ((-0.2, 0.7), (-0.5, 0.4), 12, UNDECIDED),
    ],
)
def test_the_correlation_without_the_trend_decides(tmp_path, pearson, partial, effective, verdict):
    (row,) = relation_rows(analysed(tmp_path, relation(pearson, partial, effective)))
    assert row.verdict == verdict
    assert "Pearson 0.94, Spearman 0.99" in row.paper
    assert row.what == PAIR
    assert f"[{pearson[0]:.2f}, {pearson[1]:.2f}]".replace("-", "−") in row.ours


def test_only_the_newest_record_of_a_pair_counts(tmp_path):
    old, new = relation((0.8, 0.9), (0.5, 0.6)), relation((0.8, 0.9), (-0.5, 0.6))
    (row,) = relation_rows(analysed(tmp_path, old, new))
    assert row.verdict == DIFFERS


def test_unknown_correlations_decide_nothing(tmp_path):
    empty = relation((0, 0), (0, 0)) | {"values": {"points": 2}}
    (row,) = relation_rows(analysed(tmp_path, empty))
    assert row.verdict == UNDECIDED
    assert "unknown" in row.ours


def test_curvature_is_shown_as_recorded(tmp_path):
    values = {"largest_eigenvalue": 251.0, "matrix": [1, 2]}
    made = {"kind": "analysis", "analysis": "hessian", "step": 5, "values": values}
    (row,) = landscape_rows(analysed(tmp_path, made))
    assert row.ours == "largest eigenvalue 251"
    assert row.verdict == UNDECIDED


def hessian(top, quantile):
    return {"hessian": {"lambda_max": {"value": sum(top) / 2, "interval": top},
                        "quantiles": {"0.99": {"value": sum(quantile) / 2, "interval": quantile}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("equivariance", "twirled", "verdict"),
    [
        (((9.0, 11.0), (1.0, 2.0)), ((900.0, 1100.0), (1.0, 2.0)), AGREES),
        (((900.0, 1100.0), (1.0, 2.0)), ((9.0, 11.0), (1.0, 2.0)), DIFFERS),
        (((9.0, 11.0), (1.0, 2.0)), ((9.0, 11.0), (1.0, 2.0)), UNDECIDED),
        (((9.0, 11.0), (-1.0, 2.0)), ((900.0, 1100.0), (1.0, 2.0)), UNDECIDED),
    ],
)
def test_condition_numbers_need_an_interval(tmp_path, equivariance, twirled, verdict):
    parts = {"equivariance": hessian(*equivariance), "twirled": hessian(*twirled)}
    made = {"kind": "analysis", "analysis": "hessian", "step": 5, "values": {"parts": parts}}
    (row,) = landscape_rows(analysed(tmp_path, made))
    assert row.verdict == verdict
    assert "largest eigenvalue 10" in row.ours


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.01, 0.03), AGREES), ((2.0, 9.0), DIFFERS), ((0.5, 2.0), UNDECIDED), ((None, None), UNDECIDED)],
)
def test_exact_condition_numbers_of_the_head_decide_by_their_ratio(tmp_path, interval, verdict):
    values = {"layer": "head", "parts": {"equivariance": {"condition": 6e7}, "twirled": {"condition": 3e9}},
              "ratio": {"value": 0.02, "interval": list(interval)}}  # fmt: skip
    made = {"kind": "analysis", "analysis": "conditioning", "step": 5, "values": values}
    (row,) = landscape_rows(analysed(tmp_path, made))
    assert row.verdict == verdict
    assert "in layer head: equivariance 6" in row.ours


def test_roughness_along_its_own_direction(tmp_path):
    lines = {f"eigenvector:{part}": {part: {"relative": value}} for part, value in (("twirled", 0.03), ("total", 0.2))}
    made = {"kind": "analysis", "analysis": "landscape", "step": 5, "values": {"lines": lines}}
    (row,) = landscape_rows(analysed(tmp_path, made))
    assert row.ours.endswith("twirled 0.03, total 0.2")


def test_steps_of_one_analysis_are_one_row(tmp_path):
    def rates(step, ends):
        figures = {part: {"value": sum(e) / 2, "interval": e} for part, e in ends.items()}
        values = {"whole": {"rate": figures}}
        return {"kind": "analysis", "analysis": "gradients", "step": step, "probe": "forces", "settings": {},
                "values": values}  # fmt: skip

    easy, open_ = {"twirled": [0, 1], "equivariance": [2, 3]}, {"twirled": [0, 3], "equivariance": [2, 3]}
    (row,) = landscape_rows(analysed(tmp_path, *(rates(s, e) for s, e in ((0, open_), (5, easy), (9, open_)))))
    assert row.verdict == AGREES
    assert row.what == "gradients at 3 steps to 9"
    assert row.interval == "intervals overlap; of 2 trained steps 1 easier, 0 harder, 0 equal"


def test_ratio_of_seeds_against_welch():
    from scipy import stats

    first, second = np.array([1.0, 1.2, 1.1]), np.array([2.0, 2.6, 2.2, 2.1])
    found = stats.ttest_ind(np.log(first), np.log(second), equal_var=False).confidence_interval(0.95)
    value, low, high = log_ratio(first, second)
    np.testing.assert_allclose([low, high], np.exp([found.low, found.high]), rtol=1e-12)
    np.testing.assert_allclose(value, np.exp(np.log(first).mean() - np.log(second).mean()), rtol=1e-12)
    assert np.isnan(log_ratio(first[:1], second)[1])
    assert log_ratio(np.ones(3), np.ones(3)) == (1.0, 1.0, 1.0)
