"""The page of studies from synthetic records: ranges over seeds, missing runs said aloud, the paper beside ours."""

import csv
import shutil

import pytest

from equiscope.errors import InputError, IntegrityError
from equiscope.records import Records
from equiscope.records import read as read_records
from equiscope.report import study
from equiscope.report.curves import history
from tests.faults.harness import command
from tests.report import synthetic


def _write(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    with Records(folder / "records.jsonl") as records:
        for entry in entries:
            records.append(entry["kind"], **{k: v for k, v in entry.items() if k != "kind"})


def _study(root, runs, name="model_size", **more):
    """A study folder; runs: (point, seed, reason), the finished ones with the synthetic force-field run."""
    listed = []
    for point, seed, reason in runs:
        listed.append({"point": point, "seed": seed, "folder": f"../../forcefield/{point}-{seed}", "overrides": [],
                       "status": "failed" if reason else "finished", "reason": reason})  # fmt: skip
        if not reason:
            _write(root / "forcefield" / f"{point}-{seed}", synthetic.force_field_run())
    folder = root / "studies" / f"forcefield-{name}"
    entry = {"kind": "study", "task": "forcefield", "name": name, "question": "is it so", "axis": "a", "runs": listed}
    _write(folder, [entry, *more.get("entries", [])])
    return folder


def test_table_ranges_and_missing_runs(tmp_path):
    folder = _study(tmp_path, [("58k", 0, ""), ("58k", 1, ""), ("200k", 0, "the loss is NaN at step 3")])
    loaded = study.load(folder)
    small, large = study.table(loaded)
    assert small[:3] == ("58k", "2", "59,203")
    assert small[3] == "60"
    assert small[6] == "1,000"
    assert small[8] == "0.41 ± 0 %"
    assert large[:2] == ("200k", "0")
    assert large[6] == "none"
    assert "at step 1,000; final" in study.verdict(loaded)


def test_a_single_run_has_the_interval_over_samples(tmp_path):
    (row,) = study.table(study.load(_study(tmp_path, [("58k", 0, "")])))
    assert row[8] == "0.41 % [0.39, 0.43]"


def test_page_figures_and_tables(tmp_path):
    folder = _study(tmp_path, [("58k", 0, ""), ("200k", 0, "killed <b>")])
    page = study.build([folder])
    text = page.read_text()
    assert page == tmp_path / "studies" / "forcefield.html"
    assert "200k, seed 0: killed &lt;b&gt;" in text
    assert "EScAIP" not in text.split("The paper's figures")[0]
    assert "0.081\u00a0% at 4,740" in text
    assert (folder / "figure.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.reader((folder / "table.csv").open()))
    assert tuple(rows[0]) == study.COLUMNS
    assert len(rows) == 3
    assert "http" not in text.replace("http://www.w3.org", "")


def test_what_models_cannot_have_is_said_once_for_all_their_runs(tmp_path):
    folder = _study(tmp_path, [("58k", 0, ""), ("58k", 1, ""), ("200k", 0, ""), ("1M", 0, "")])
    refusal = {"kind": "refusal", "analysis": "hessian", "reason": "no <derivative>", "version": "0"}
    for name in ("58k-0", "58k-1", "200k-0"):
        _write(tmp_path / "forcefield" / name, [{**refusal, "step": step} for step in (0, 6)])
    page = study.build([folder])
    told = "hessian of 58k, 200k: no {}derivative{}. "
    assert page.read_text().count("Cannot be had") == 1
    assert told.format("&lt;", "&gt;") in page.read_text()
    assert f"Cannot be had: {told.format('<', '>').strip()}" in page.with_suffix(".md").read_text()
    run = tmp_path / "forcefield" / "58k-0"
    remark = history(read_records(run / "records.jsonl")).remarks[-1]
    assert remark == "The analysis “hessian” cannot be made of this model: no <derivative>."
    _write(run, [{"kind": "analysis", "analysis": "hessian", "step": 6, "probe": "a", "settings": {}, "values": {}}])
    assert history(read_records(run / "records.jsonl")).refusals == {}


def test_the_newest_record_counts(tmp_path):
    folder = _study(tmp_path, [("58k", 0, "")])
    with Records(folder / "records.jsonl") as records:
        old = records.entries[0]
        runs = [{**old["runs"][0], "reason": "deleted"}]
        records.append("study", **{k: v for k, v in old.items() if k not in ("n", "kind", "sha", "runs")}, runs=runs)
    assert study.load(folder).points[0].missing == ("seed 0: deleted",)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="at least one study"):
        study.build([])
    _write(tmp_path / "other", [{"kind": "train", "step": 1}])
    with pytest.raises(InputError, match="holds no study"):
        study.load(tmp_path / "other")


def test_the_same_page_as_markdown_beside_its_pictures(tmp_path):
    folder = _study(tmp_path, [("58k", 0, ""), ("200k", 0, "killed | <b>")])
    text = study.build([folder]).with_suffix(".md").read_text()
    lines = text.splitlines()
    place = lines.index("| " + " | ".join(study.COLUMNS) + " |")
    assert lines[place + 1].count("---") == len(study.COLUMNS)
    assert lines[place + 2].split(" | ")[0] == "| 58k"
    assert "Failed: 200k, seed 0: killed | <b>" in text
    (image,) = [line for line in lines if line.startswith("![Percent")]
    assert (tmp_path / "studies" / image.split("(")[1].rstrip(")")).exists()
    assert "\n\n\n" not in text


def test_studies_of_the_task_beside_these_are_on_the_page_too(tmp_path):
    sizes, replicates, damaged = (
        _study(tmp_path / "own", [(f"{name}-point", 0, "")], name=name)
        for name in ("model_size", "replicates", "optimizer")
    )
    (damaged / "records.jsonl").write_bytes(b"{}\n")
    (sizes.parent / "forcefield-augmentation").mkdir()
    with pytest.warns(UserWarning, match="forcefield-optimizer is left out of the page"):
        found = study.with_siblings([sizes], ("replicates", "model_size", "optimizer", "augmentation", "efficiency"))
    assert found == [replicates, sizes]


def test_a_model_worse_than_the_linear_predictor_has_no_skilled_crossing_whatever_its_r2(tmp_path):
    folder = _study(tmp_path, [("58k", 0, "")])
    run = tmp_path / "forcefield" / "58k-0" / "records.jsonl"
    records = [{k: v for k, v in r.items() if k not in ("n", "sha")} for r in read_records(run)]
    for file in run.parent.iterdir():
        file.unlink()
    _write(run.parent, [{**r, "skill": -0.2} if r["kind"] == "measure" else r for r in records])
    loaded = study.load(folder)
    (row,) = study.table(loaded)
    assert row[study.COLUMNS.index("skilled crossing")] == "none"
    assert row[study.COLUMNS.index("skill")] == "−0.20"
    said = study.verdict(loaded)
    assert said.startswith("No run has a skilled crossing: under 2 % for good with R² ≥ 0.5 and a loss below that of")
    (final,) = [r["result"]["r2"] for r in records if r.get("part") == "final"]
    assert said.endswith(f"At the end R² {final:.2f} and skill −0.20.")
    _, _, _, able = study._common(loaded.points[0].curves)
    assert not able.any()
    assert "measured on the same" in study.build([folder]).with_suffix(".md").read_text()


def test_a_final_figure_that_is_missing_is_no_end_of_the_spread(tmp_path):
    folder = _study(tmp_path, [("58k", 0, "")])
    (run,) = study.load(folder).points[0].runs
    book = synthetic.force_field_run()
    next(r for r in book if r.get("part") == "final")["result"]["percent"] = None
    unknown = history(book)
    both = study.Study(study.load(folder).record, (study.Point("a", (unknown, run), ()),))
    assert "final percents lie between 0.41 and 0.41." in study.verdict(both)


def test_voxels_are_studied_on_the_probe_that_decides():
    told = history([
        {"kind": "run", "name": "n", "task": "voxels", "model": "unet", "parameters": 1, "config": {}},
        *({"kind": "measure", "step": step, "part": part, "probe": probe, "headline": probe == "octahedral",
           "seconds": 0.0, "skill": 0.5, "result": {"percent": percent, "percent_interval": [percent, percent],
           "interval_kind": "two-sided", "r2": 0.9}}
          for step, part in ((0, "track"), (10, "track"), (10, "final"))
          for probe, percent in (("octahedral", 1.0), ("SO(3), cubic, noise averaged", 40.0))),
    ])  # fmt: skip
    point = study.Point("a", (told,), ())
    assert [curve.probe for curve in point.curves] == ["SO(3), cubic, noise averaged"]
    assert point.finals[0].result.percent == 40.0


def test_runs_that_go_on_and_hours_of_the_card(tmp_path):
    """An open run is shown as far as it is; hours are those of training, measurements and analyses, in words."""
    folder = tmp_path / "studies" / "forcefield-paper_scale"
    book = [dict(record) for record in synthetic.force_field_run()]
    book[0] |= {"device": "cuda:0", "hardware": "H200"}
    for name, entries in (("a", book), ("b", [record for record in book if record["kind"] != "end"])):
        _write(tmp_path / "forcefield" / f"{name}-0", entries)
    common = {"seed": 0, "overrides": [], "reason": ""}
    listed = [
        {"point": name, "folder": f"../../forcefield/{name}-0", "status": status, **common}
        for name, status in (("a", "finished"), ("b", "open"), ("c", "open"))
    ]
    entry = {"kind": "study", "task": "forcefield", "name": "paper_scale", "question": "q", "axis": "a", "runs": listed}
    _write(folder, [entry])
    found = study.load(folder)
    assert [point.going for point in found.points] == [(), ("seed 0: step 2,400 of 2,400",), ("seed 0: not begun",)]
    assert [len(point.runs) for point in found.points] == [1, 1, 0]
    page = study.build([folder]).read_text()
    assert "Not finished." in page
    assert "GPU-hours of H200: training" in page
    end = book[-1]
    one = study.spent([found.points[0].runs[0]])
    hours = (end["train_seconds"] + end["track_seconds"]) / 3600
    assert one.startswith(f"{hours:.2g} GPU-hours of H200: training {end['train_seconds'] / 3600:.2g}, measurements")


def test_every_run_counts_whatever_its_records_say_of_its_seed(tmp_path):
    folder = _study(tmp_path, [("58k", 0, ""), ("58k", 1, "")])
    (point,) = study.load(folder).points
    assert len({str(run.run.config.get("seed")) for run in point.runs}) == 1
    assert len(point.curves) == 2


def test_a_rate_that_goes_on_is_not_compared_with_those_at_their_end(tmp_path):
    """The open run has the lower loss so far; it is not annealed, and its last step is not that of the others."""
    listed = []
    for rate, factor, end in (("1e-3", 1.0, True), ("3e-3", 2.0, True), ("1e-2", 0.1, False)):
        book = [record for record in synthetic.force_field_run() if end or record["kind"] != "end"]
        for record in book:
            if record["kind"] == "measure":
                for key in ("total", "twirled", "equivariance"):
                    record["result"][key] *= factor
        _write(tmp_path / "forcefield" / rate, book)
        listed.append({"point": f"m @ {rate}", "seed": 0, "folder": f"../../forcefield/{rate}", "overrides": [],
                       "status": "finished" if end else "open", "reason": ""})  # fmt: skip
    cost = {"step_seconds": [1.0] * 9, "infer_seconds": [1.0] * 9, "samples": 32, "infer_samples": 32, "flops": 1e9,
            "parameters": 1, "peak_mib": 1.0}  # fmt: skip
    profile = {"kind": "profile", "models": ["m"], "costs": {"m": cost}, "against": "m", "device": "cpu", "threads": 1,
               "load": [0.0, 0.0, 0.0]}  # fmt: skip
    folder = tmp_path / "studies" / "forcefield-efficiency"
    entry = {"kind": "study", "task": "forcefield", "name": "efficiency", "question": "q", "axis": "a", "runs": listed}
    _write(folder, [entry, profile])
    study.build([folder])
    rows = (tmp_path / "studies" / "forcefield.md").read_text()
    assert "| m | 1 | 1e-3 (1 seed, at the edge" in rows
    assert "1e-2 (" not in rows


def test_a_run_whose_folder_is_gone_is_missing(tmp_path):
    """Deleted by hand, or a study that was copied without its runs: the others are shown, and it is said aloud."""
    folder = _study(tmp_path, [("58k", 0, ""), ("58k", 1, "")])
    shutil.rmtree(tmp_path / "forcefield" / "58k-1")
    (point,) = study.load(folder).points
    assert (len(point.runs), point.missing) == (1, ("seed 1: its folder ../../forcefield/58k-1 is gone",))
    assert "58k-1 is gone" in study.build([folder]).read_text()
    # A folder without its records is damage.
    (tmp_path / "forcefield" / "58k-0" / "records.jsonl").unlink()
    with pytest.raises(IntegrityError, match="no records at"):
        study.load(folder)


@pytest.mark.parametrize("runs", ["²", [1], [{"seed": "²"}], [{"seed": [1]}]])
def test_whole_records_of_another_form_are_refused_in_a_sentence(tmp_path, runs):
    _write(tmp_path / "s", [{"kind": "study", "task": "forcefield", "name": "n", "runs": runs}])
    with pytest.raises(IntegrityError, match="not as this version writes them"):
        study.load(tmp_path / "s")


def test_a_study_is_no_run(tmp_path):
    folder = _study(tmp_path, [("58k", 0, "")])
    code, told = command("report", folder)
    assert (code, (folder / "report.html").exists()) == (2, False)
    assert "holds a study, not a run" in told
