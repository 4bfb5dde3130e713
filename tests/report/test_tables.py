"""The tables: comparison with the paper, probes, run, what was rotated."""

from equiscope.decomposition.result import Result
from equiscope.report import tables
from equiscope.report.crossings import crossings
from equiscope.report.curves import history
from equiscope.report.views import view
from tests.report import synthetic


def test_comparison_puts_ours_beside_the_papers():
    told = history(synthetic.force_field_run())
    rows = {what: (ours, theirs) for what, ours, theirs in tables.comparison(told, crossings(told.headline))}
    assert rows["start"][1] == "20.2 % at step 20"
    assert rows["first ≤ 2 %"][0].endswith("at step 60 (R² 0.00)")
    assert rows["first ≤ 2 %"][1] == "1,680 (last above 1,920)"
    assert rows["skilled crossing"][0].endswith("at step 1,000 (R² 0.53)")
    assert rows["end"] == ("0.45 % at step 2,400 (R² 0.93)", "about 0.055 % at step 445k")


def test_comparison_reads_the_points_where_there_is_no_table():
    reference = {"label": "paper", "points": {"forces": synthetic.PAPER_POINTS}}
    told = history(synthetic.force_field_run(reference=reference))
    rows = {row[0]: row[2] for row in tables.comparison(told, crossings(told.headline))}
    assert rows["start"] == "20 % at step 20"
    assert rows["first ≤ 2 %"] == "2.0 % at step 1,680"
    assert rows["dip (lowest)"] == "0.081 % at step 4,740"
    assert rows["later peak"] == "0.38 % at step 17,000"
    assert rows["end"] == "0.055 % at step 445,000"


def test_comparison_keeps_rows_it_does_not_know_and_other_thresholds():
    table = [["first ≤ 5 %", "860"], ["loss at the end", "0.2"]]
    told = history(synthetic.force_field_run(reference={"label": "paper", "points": {}, "table": table}))
    rows = tables.comparison(told, crossings(told.headline))
    assert rows[-2:] == [("first ≤ 5 %", "", "860"), ("loss at the end", "", "0.2")]
    found = dict((r[0], r[2]) for r in rows)
    assert found["first ≤ 2 %"] == found["end"] == "–"


def test_probes_and_comparison_by_probe():
    told = history(synthetic.flow_run())
    rows = tables.probes(told)
    assert [row[0] for row in rows] == ["pooled", *(f"t={t:g}" for t in synthetic.TIMES)]
    assert rows[0][1:5] == ("3.1 % (2.6–3.6 %)", "0.0149", "0.48", "0.60")
    by_probe = tables.comparison_by_probe(told)
    assert [row[:2] for row in by_probe[:2]] == [("t=0.4", "this run"), ("t=0.4", "paper")]
    assert by_probe[1][-1] == "6.5 % at step 1,100,000"


def test_run_table():
    rows = dict(tables.run_table(history(synthetic.force_field_run())))
    assert rows["parameters"] == "59,203"
    assert rows["training time"] == "4 min 36 s"
    assert rows["tracking share"] == "12 % of training and tracking"
    assert rows["steps"] == "2,400 of 2,400"
    assert "torch 2.13.0" in rows["versions"]


def test_data_table_folds_details_but_never_the_orientation():
    facts = {f"fact {i}": i for i in range(30)}
    data = {"kind": "data", **facts, "orientation": {"eigenvalues": [0.3, 0.33, 0.37]}, "counts": {"read": 7}}
    main, details = tables.data_table(history([data]))
    assert len(main) == tables.MAIN_ROWS
    assert main[:2] == [("orientation: eigenvalues, 0.333 each where even", "0.3, 0.33, 0.37"), ("fact 0", "0")]
    assert details[-1] == ("counts · read", "7")
    assert len(main) + len(details) == 32


def test_rotation_table_names_what_turned_and_what_was_held():
    told = history(synthetic.force_field_run())
    rows = dict(tables.rotation_table(told, view(Result, synthetic.result(0.4, 0.9, held_fixed=["charges", "cell"]))))
    assert rows["rotated: pos"] == "1o (a vector)"
    assert rows["held fixed"] == "charges, cell"
    assert rows["centre of rotation"] == "origin"
    assert rows["rotations"] == "2 random cosets of the group T: 24 per sample"
    assert rows["samples"] == "96 in 48 independent clusters"
    assert rows["loss"] == "squared error, mean over samples of means over components"
    for name in ("total loss, averaged over rotations", "twirled loss", "equivariance error", "numerical noise floor"):
        assert "(eV/Å)²" in rows[name], name


def test_data_in_words_with_units():
    data = {"kind": "data", "atoms": [10, 20], "elements": [1, 6, 17], "force_rms": 2.54, "energy_rms": 1.6,
            "parts": {"train": {"frames": 3200, "molecules": 320}, "final": 64}, "used": {"track": 48}}  # fmt: skip
    main, _ = tables.data_table(history([data]))
    assert dict(main) == {
        "atoms of a molecule": "10 to 20",
        "elements": "H, C, Cl",
        "root mean square of a force component": "2.54 eV/Å",
        "root mean square of the energy learned": "1.6 eV",
        "parts · for training": "3,200 frames, 320 molecules",
        "parts · for the final figure": "64",
        "used · followed along training": "48",
    }


def test_outputs_table_only_for_several_outputs():
    one = synthetic.result(0.4, 0.9)
    assert tables.outputs_table(view(Result, one)) == []
    two = one | {"outputs": {**one["outputs"], "energy": one["outputs"]["forces"] | {"percent": 0.1}}}
    assert [row[0] for row in tables.outputs_table(view(Result, two))] == ["forces", "energy"]


def test_what_a_run_computed_in_is_in_its_table():
    book = [dict(record) for record in synthetic.force_field_run()]
    book[0] |= {
        "device": "cuda:0", "hardware": "NVIDIA H200",
        "computing": {"training": "bf16-mixed", "matmul": "high", "compile": "inductor",
                      "measured": {"track": "float32", "final": "as trained (bf16-mixed)"}},
    }  # fmt: skip
    book[-1] |= {"gpu_seconds": 7200.0}
    rows = dict(tables.run_table(history(book)))
    assert rows["hardware"] == "NVIDIA H200"
    assert rows["training computes in"] == "bf16-mixed, float32 products high, compiled by inductor"
    assert rows["measured in"] == "track float32, final as trained (bf16-mixed)"
    assert rows["GPU time"] == "2 h 0 min"
