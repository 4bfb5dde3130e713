"""Who is ahead at equal seconds: known curves, replicates, and pairs that must not be compared."""

import numpy as np
import pytest

from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED, gather
from equiscope.report.versus import at_budget, rows
from tests.report import synthetic
from tests.report.test_evidence import renamed, symmetric_run
from tests.report.test_page import write


def scaled(records, factor, **changes):
    """The run with every total loss times a factor."""
    for record in records:
        if record["kind"] == "measure":
            for key in ("total", "twirled", "equivariance"):
                record["result"][key] *= factor
    return renamed(records, **changes)


def compared(place, *runs):
    return rows(gather([write(place / str(number), run) for number, run in enumerate(runs)]))


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
