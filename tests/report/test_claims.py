"""Each verdict by its rule: built runs for which the answer is known, and the same runs with one thing changed."""

import numpy as np
import pytest

from equiscope.report.claims import at_budget, claims, equal_seconds, landscape_rows, relation_rows
from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED, Row, combined, gather
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
    assert found["easier"].verdict == found["relations"].verdict == UNDECIDED
    assert any("voxels" in line for line in found["quick"].missing)


@pytest.mark.parametrize(
    ("percents", "r2s", "steps", "verdict"),
    [
        ((60, 5, 0.5, 0.4), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), AGREES),
        ((60, 0.1, 0.1, 0.1), (-1, 0.0, 0.0, 0.1), (0, 100, 1000, 12000), UNDECIDED),  # collapsed, never skilled
        ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), DIFFERS),
        ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 3000), UNDECIDED),  # too short to contradict
        ((60, 5, 4, 0.5), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), UNDECIDED),  # crossed, but after the window
    ],
)
def test_quick(tmp_path, percents, r2s, steps, verdict):
    assert judged(tmp_path, curve_run(percents, r2s, steps))["quick"].verdict == verdict


def test_an_interval_over_the_threshold_decides_nothing(tmp_path):
    wide = curve_run((60, 5, 2.1, 2.2), (-1, 0.1, 0.8, 0.9), width=0.3)
    assert judged(tmp_path, wide)["quick"].verdict == UNDECIDED


@pytest.mark.parametrize(
    ("top", "r2", "verdict"), [(0.5, 0.8, AGREES), (5.0, 0.8, DIFFERS), (2.0, 0.8, UNDECIDED), (5.0, 0.3, UNDECIDED)]
)
def test_penalty_looks_at_every_skilled_measurement(tmp_path, top, r2, verdict):
    run = curve_run((60, 5, top, 0.4), (-1, 0.1, r2, 0.9 if r2 > 0.5 else 0.4))
    found = judged(tmp_path, run)["penalty"]
    assert found.verdict == verdict
    assert "0.4" in found.rows[0].interval


def test_penalty_names_the_worst_probe(tmp_path):
    rows = judged(tmp_path, synthetic.flow_run())["penalty"].rows
    assert rows[1].what == "the same at its worst probe, t=0.4"
    assert rows[1].verdict == DIFFERS


def test_robust_needs_two_sizes(tmp_path):
    good, bad = ((60, 5, 0.5, 0.4), (-1, 0.1, 0.8, 0.9)), ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9))
    small, large = (curve_run(*good, name=str(n), parameters=n) for n in (1000, 9000))
    assert judged(tmp_path / "one", small)["robust"].verdict == UNDECIDED
    both = judged(tmp_path / "two", small, large)["robust"]
    assert both.verdict == AGREES
    assert "1,000: 1,000; 9,000: 1,000" in both.rows[0].ours
    broken = curve_run(*bad, name="9000", parameters=9000)
    assert judged(tmp_path / "three", small, broken)["robust"].verdict == DIFFERS


def test_measure_sees_parts_that_do_not_add_up_and_negative_errors(tmp_path):
    assert judged(tmp_path / "good", synthetic.force_field_run())["measure"].verdict == AGREES
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


def test_verdicts_combine():
    rows = [Row("", "", "", "", "", "", verdict) for verdict in (AGREES, UNDECIDED, DIFFERS)]
    assert combined(rows) == DIFFERS
    assert combined(rows[:2]) == AGREES
    assert combined(rows[1:2]) == combined([]) == UNDECIDED
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


def scaled(records, factor, **changes):
    """The run with every total loss times a factor."""
    for record in records:
        if record["kind"] == "measure":
            for key in ("total", "twirled", "equivariance"):
                record["result"][key] *= factor
    return renamed(records, **changes)


def compared(place, *runs):
    return equal_seconds(gather([write(place / str(number), run) for number, run in enumerate(runs)]))


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, UNDECIDED), (1.5, AGREES), (0.5, DIFFERS), (1.05, UNDECIDED)])
def test_the_lower_loss_at_equal_seconds(tmp_path, factor, verdict):
    ((row,), missing) = compared(tmp_path, synthetic.force_field_run(), scaled(symmetric_run(), factor))
    assert row.verdict == verdict
    assert f"ratio {1 / factor:.2f} at 276 s" in row.ours
    assert "no interval over seeds" in row.interval
    assert len(missing) == 2


def test_replicates_give_the_margin(tmp_path):
    learning = [scaled(synthetic.force_field_run(), f, name=str(f)) for f in (0.98, 1.02)]
    symmetric = [scaled(symmetric_run(), f, name=f"tied{f}") for f in (1.07, 1.09)]
    ((row,), _) = compared(tmp_path, *learning, *symmetric)
    assert row.verdict == AGREES
    assert "two standard errors over seeds" in row.interval
    assert "(2 seeds) against escaip_tied (2)" in row.run


def test_another_data_set_or_device_is_no_pair(tmp_path):
    other = symmetric_run(device="cuda:0")
    assert compared(tmp_path, synthetic.force_field_run(), other)[0] == []


def test_the_loss_between_measurements_is_log_linear(tmp_path):
    run = gather([write(tmp_path / "a", synthetic.force_field_run())]).runs[0]
    middle = (run.seconds[-2] + run.seconds[-1]) / 2
    expected = np.sqrt(run.curve.total[-2] * run.curve.total[-1])
    np.testing.assert_allclose(at_budget([run], middle), [expected], rtol=1e-12)
