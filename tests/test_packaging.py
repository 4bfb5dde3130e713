"""What is published agrees with itself: version, citation, extras, files that the wheel needs."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_is_semantic_and_the_same_everywhere():
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_citation_names_project_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith("equiscope")
    assert citation["license"] == PROJECT["license"]
    paper = citation["preferred-citation"]
    assert paper["title"] == "Training Dynamics of Learning 3D-Rotational Equivariance"
    assert [author["family-names"] for author in paper["authors"]] == ["Shen", "Nowara", "Maser", "Cho"]


def test_changelog_has_a_place_for_what_is_new():
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_extra_that_an_error_or_page_names_exists():
    named = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for extras in re.findall(r"equiscope\[([\w,]+)\]", path.read_text()):
            named |= set(extras.split(","))
    assert named <= set(PROJECT["optional-dependencies"])


def test_typed_and_data_files_are_in_the_package():
    package = ROOT / "src" / "equiscope"
    for name in ("py.typed", "conf/config.yaml", "report/paper.toml", "report/templates/report.html.j2"):
        assert (package / name).exists(), name
