"""The spectrum on the page: shares with their errors, and the degree that most of the error has."""

from equiscope.report.kinds import sections


def test_the_degree_of_most_of_the_error():
    values = {"degrees": [0, 1, 2], "share": [0.0, 0.62, 0.37], "error": [0.001, 0.01, 0.01], "remainder": 0.01,
              "remainder_error": 0.001, "percent": 1917.0}  # fmt: skip
    entry = {"kind": "analysis", "analysis": "spectrum", "step": 90, "probe": "y", "settings": {}, "values": values}
    (section,) = sections([entry])
    assert section.lead == "At step 90 most of the equivariance error, 62.0 %, is of Wigner degree l = 1."
    assert section.tables[0].head == ["step", "percent of the loss", "l = 0", "l = 1", "l = 2", "l > 2"]
    assert section.tables[0].rows[0] == ["90", "1.92 × 10³", "0.0 ± 0.1", "62.0 ± 1.0", "37.0 ± 1.0", "1.0 ± 0.1"]
    assert section.chart is None
