"""One self-contained HTML page for a run: everything from its records, nothing from the network."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from equiscope import records as record_files
from equiscope.report import analyses, analysis_figures, figures, interactive, sentences, style, tables
from equiscope.report.crossings import SKILL, THRESHOLD, crossings
from equiscope.report.curves import Record, RunHistory, history

#: The blanks in "2 %", "R² 0.5", "step 100", "95 % interval".
_TOGETHER = re.compile(r"(?<=\d) (?=%)|(?<=R²) |(?<=\bstep) (?=\d)|(?<=[≤≥]) (?=\d)")

TEMPLATES = Path(__file__).parent / "templates"


def build(run_folder: str | os.PathLike[str]) -> Path:
    """Write ``figures/*.png`` and ``report.html`` of a run from its ``records.jsonl``; the path of the page.

    The page is replaced whole, so a reader never sees half of it. A run that is still going, or was
    killed, gives a page of what was recorded, which says so.

    Raises:
        IntegrityError: when the records are missing or damaged.
        RunError: when the page cannot be written.
    """
    folder = Path(run_folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entries = record_files.read(folder / "records.jsonl")
    remarks = ["The last line of the records was cut off while it was written, and is left out." for _ in caught][:1]
    page = render(entries, folder, remarks)
    target = folder / "report.html"
    record_files.write_atomically(target, page.encode())
    return target


def render(entries: Iterable[Record], folder: Path, remarks: Iterable[str] = ()) -> str:
    """The page of a run as text; its PNG figures go to ``folder/figures``."""
    entries = list(entries)
    told = history(entries)
    pictures = figures.save(told, folder / "figures")
    analysed = _analyses(entries, folder)
    template = page_environment().get_template("report.html.j2")
    content = _content(told, pictures, [*remarks, *told.remarks], folder.name)
    return template.render(**content, analyses=analysed)


def page_environment() -> jinja2.Environment:
    """Jinja as every page uses it: escaped, missing values are errors, numbers stay with their units."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
    )


def _analyses(entries: list[Record], folder: Path) -> list[dict[str, Any]]:
    """The analyses as the template shows them; their PNG figures go to ``folder/figures``."""
    found = analyses.sections(entries)
    names = {f"{s.name}-{re.sub('[^A-Za-z0-9.=]+', '-', s.probe).strip('-')}": s for s in found}
    drawings = {name: functools.partial(analysis_figures.png_figure, section) for name, section in names.items()}
    images = figures.save_each(drawings, folder / "figures")
    several = len({section.probe for section in found}) > 1
    made = []
    for name, section in names.items():
        figure = analysis_figures.plotly_figure(section)
        made.append({
            "id": name,
            "title": section.title + (f" ({section.probe})" if several else ""),
            "lead": section.lead,
            "tables": section.tables,
            "caption": analysis_figures.CAPTIONS.get(section.name, ""),
            "chart": _json(figure) if figure is not None else None,
            "image": data_uri(images[name]) if name in images else None,
        })  # fmt: skip
    return made


def _content(told: RunHistory, pictures: dict[str, Path], remarks: list[str], folder_name: str) -> dict[str, Any]:
    """Every value the template shows."""
    curve = told.headline
    found = crossings(curve) if curve is not None and len(curve) else None
    record = told.headline_record
    result = record["result"] if record is not None else None
    charts = {
        "percent": interactive.percent_figure(told),
        "losses": interactive.losses_figure(told),
        "skill": interactive.skill_figure(told),
    }
    panels = interactive.panel_figures(told)
    data_rows, more_data_rows = tables.data_table(told)
    reference = told.run.get("reference") or {}
    at_floor = curve is not None and style.log_points(curve, _floor(told)).at_floor
    return {
        "name": str(told.run.get("name") or folder_name),
        "task": str(told.run.get("task") or ""),
        "remarks": remarks,
        "headline": sentences.headline(told),
        "tiles": _tiles(found),
        "skilled": found is not None and found.skilled is not None,
        "verdict": sentences.verdict(found) if found is not None else "",
        "warning": sentences.crossing_warning(found) if found is not None else None,
        "samples": sentences.samples_name(told),
        "threshold": f"{THRESHOLD:g}",
        "skill": f"{SKILL:g}",
        "points_at_floor": int(at_floor.sum()) if at_floor is not False else 0,
        "upper_limits": int(curve.is_upper_limit.sum()) if curve is not None else 0,
        "charts": {name: _json(figure) if figure is not None else None for name, figure in charts.items()},
        "panels": [(f"panel-{i}", probe, _json(figure)) for i, (probe, figure) in enumerate(panels.items())],
        "images": {"panels": None, "pictures": None} | {name: data_uri(path) for name, path in pictures.items()},
        "probe": curve.probe if curve is not None else "",
        "probes": tables.probes(told) if len(told.curves) > 1 or len(told.finals) > 1 else [],
        "comparison": tables.comparison(told, found) if reference else [],
        "comparison_by_probe": tables.comparison_by_probe(told),
        "reference": {"label": None, "source": None} | dict(reference),
        "run_rows": tables.run_table(told),
        "data_rows": data_rows,
        "more_data_rows": more_data_rows,
        "config_rows": tables.config_table(told),
        "rotation_rows": tables.rotation_table(result) if result is not None else [],
        "output_rows": tables.outputs_table(result) if result is not None else [],
        "notes": list((result or {}).get("notes") or []),
        "meaning": [Markup(line) for line in sentences.MEANING],
        # "</script" inside a script element would end it.
        "plotly": Markup(get_plotlyjs().replace("</script", "<\\/script")) if curve is not None else "",
    }


def _floor(told: RunHistory) -> float:
    curve = told.headline
    assert curve is not None
    return style.percent_floor([curve], style.reference_points(told, curve.probe)[1][:, 1])


def _tiles(found: Any) -> list[dict[str, Any]]:
    """The four crossings as (title, step, R², what it means, whether it is the headline)."""
    if found is None:
        return []
    limit = f"{found.threshold:g} %"
    rows = (
        ("Skilled crossing", found.skilled, f"interval under {limit} and R² ≥ {SKILL:g} from here on", True),
        ("Sustained", found.sustained, f"whole interval under {limit} from here on", False),
        ("First crossing", found.first, f"first measurement at or under {limit}", False),
        ("Last above", found.last_above, f"last measurement over {limit}", False),
    )
    return [
        {
            "title": title,
            "step": f"{crossing.step:,}" if crossing is not None else "–",
            "r2": style.r2_text(crossing.r2) if crossing is not None else "",
            "meaning": meaning,
            "main": main,
            "void": crossing is not None and title in ("First crossing", "Sustained") and crossing.unskilled,
        }
        for title, crossing, meaning, main in rows
    ]


def _unbroken(value: Any) -> Any:
    """Text whose numbers do not part from their unit or name at the end of a line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _TOGETHER.sub("\u00a0", value)


def _json(figure: go.Figure) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    return Markup(json.dumps(json.loads(figure.to_json()), separators=(",", ":")).replace("</", "<\\/"))


def data_uri(path: Path) -> str:
    """A PNG file as the address of an image within the page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
