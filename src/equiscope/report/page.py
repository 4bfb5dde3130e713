"""One self-contained HTML page for a run: everything from its records, nothing from the network."""

from __future__ import annotations

import base64
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from equiscope import records as record_files
from equiscope import tasks
from equiscope.errors import EquiscopeError, IntegrityError, first_line
from equiscope.report import chart, figures, kinds, sentences, style, tables
from equiscope.report.chart import Chart
from equiscope.report.crossings import SKILL, THRESHOLD, crossings
from equiscope.report.curves import RunHistory, history
from equiscope.report.live import live
from equiscope.report.views import Record
from equiscope.words import leaves, text, without_secrets

#: The blanks in "2 %", "R² 0.5", "step 100", "95 % interval".
_TOGETHER = re.compile(r"(?<=\d) (?=%)|(?<=R²) |(?<=\bstep) (?=\d)|(?<=[≤≥]) (?=\d)|(?<=\d) (?=× 10)|(?<=×) (?=10)")

TEMPLATES = Path(__file__).parent / "templates"


def build(run_folder: str | os.PathLike[str]) -> Path:
    """Write ``figures/*.png`` and ``report.html`` of a run from its ``records.jsonl``; the path of the page.

    The page is replaced whole, so a reader never sees half of it. A run that is still going, or was
    killed, gives a page of what was recorded, which says so.

    Args:
        run_folder: the run's folder, ``root/task/run``.

    Raises:
        IntegrityError: when the records are missing or damaged.
        RunError: when the page cannot be written.
    """
    folder = Path(os.path.abspath(run_folder))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entries = record_files.read(folder / "records.jsonl")
    remarks = ["The last line of the records was cut off while it was written, and is left out." for _ in caught][:1]
    try:
        page = render(entries, folder, remarks)
    except EquiscopeError:
        raise
    except kinds.UNREADABLE as error:
        raise IntegrityError(
            f"the records of {folder} are whole but not as a run writes them, and cannot be shown: {first_line(error)}"
        ) from error
    target = folder / "report.html"
    record_files.write_atomically(target, page.encode())
    return target


def render(entries: Iterable[Record], folder: Path, remarks: Iterable[str] = ()) -> str:
    """The page of a run as text; its PNG figures go to ``folder/figures``."""
    entries = list(entries)
    told = history(entries)
    charts, panels = figures.charts(told), figures.panels(told)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = kinds.sections(entries, sentences.squared_unit(told))
    remarks = [*remarks, *(str(warning.message) for warning in caught)]
    sections: dict[str, kinds.Section] = {}
    for section in found:
        stem = f"{section.name}-{re.sub('[^A-Za-z0-9.=]+', '-', section.probe).strip('-')}"
        # Of probes that differ in other characters alone, each has its place.
        sections[f"{stem}-{len(sections)}" if stem in sections else stem] = section
    pictures = (lambda: figures.pictures(told)) if told.pictures else None
    drawings: dict[str, Any] = {
        **dict.fromkeys(("percent", "losses", "relative")), **charts, "panels": panels, "parts": figures.parts(told),
        **{name: section.chart for name, section in sections.items()}, "pictures": pictures,
    }  # fmt: skip
    images = {name: data_uri(path) for name, path in chart.save(drawings, folder / "figures", optional=True).items()}
    several = len({section.probe for section in sections.values()}) > 1
    content = {
        **_content(told, folder.name),
        "remarks": [*remarks, *told.remarks],
        "charts": {name: _json(drawn) for name, drawn in charts.items()},
        "panels": [] if panels is None else [
            (f"panel-{place}", panel.title, _json(Chart([[replace(panel, title="")]], height=panels.height, legend=0)))
            for place, panel in enumerate(panel for row in panels.rows for panel in row)
        ],
        "images": images,
        "analyses": [
            {"id": name, "title": section.kind.title + (f" ({section.probe})" if several else ""), "lead": section.lead,
             "tables": section.tables, "caption": section.kind.caption, "image": images.get(name),
             "chart": None if section.chart is None else _json(section.chart)}
            for name, section in sections.items()
        ],
    }  # fmt: skip
    return page_environment().get_template("report.html.j2").render(**content)


def page_environment() -> jinja2.Environment:
    """Jinja as every page uses it: escaped, missing values are errors, numbers stay with their units."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_unbroken)  # fmt: skip


def _content(told: RunHistory, folder_name: str) -> dict[str, Any]:
    """Every value of the run itself that the template shows."""
    curve, measured = told.headline, told.headline_record is not None
    found = crossings(curve) if curve is not None else None
    data_rows, more_data_rows = tables.data_table(told)
    at_floor, paper_end = 0, ""
    if curve is not None:
        floor, _ = figures.percent_ends(told, [curve], style.step_axis(curve.step))
        at_floor = int((curve.percent <= floor).sum())
        paper = style.reference_points(told, curve.probe)
        # The last step of the paper's curve where it lies beyond the run's.
        paper_end = f"{paper[-1, 0]:,.0f}" if len(paper) and paper[-1, 0] > curve.step[-1] else ""
    return {
        "name": told.run.name or folder_name,
        "task": told.run.task,
        "headline": sentences.headline(told),
        "found": found,
        "verdict": sentences.verdict(found) if found is not None else "",
        "warning": sentences.crossing_warning(found) if found is not None else None,
        "samples": tasks.words(told.run.task).samples,
        "unit": sentences.squared_unit(told),
        "threshold": f"{THRESHOLD:g}",
        "skill": f"{SKILL:g}",
        "points_at_floor": at_floor,
        "paper_end": paper_end,
        "upper_limits": int(curve.is_upper_limit.sum()) if curve is not None else 0,
        "probe": curve.probe if curve is not None else "",
        "probes": tables.probes(told) if len(told.curves) > 1 or len(told.finals) > 1 else [],
        "comparison": tables.comparison(told, found),
        "comparison_by_probe": tables.comparison_by_probe(told),
        "reference": told.run.reference,
        "run_rows": tables.run_table(told),
        "data_rows": data_rows,
        "more_data_rows": more_data_rows,
        # By the names under which `equiscope train` takes them.
        "config_rows": [(name, text(value)) for name, value in leaves(without_secrets(told.run.config)) if value != {}],
        "rotation_rows": tables.rotation_table(told, told.result) if measured else [],
        "output_rows": tables.outputs_table(told.result),
        "notes": told.result.notes,
        # "</script" inside a script element would end it.
        "plotly": Markup(get_plotlyjs().replace("</script", "<\\/script")) if curve is not None else "",
    }


def _unbroken(value: Any) -> Any:
    """Text whose numbers do not part from their unit or name at the end of a line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _TOGETHER.sub("\u00a0", value)


def _json(drawn: Chart) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    figure = json.loads(live(drawn).to_json())
    return Markup(json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c"))


def data_uri(path: Path) -> str:
    """A PNG file as the address of an image within the page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
