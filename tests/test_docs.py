"""The documentation builds without a warning, its examples run, and it reads well in a real browser."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equiscope import cli
from tests import browser
from tests.test_readme import Model

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def _blocks():
    for page in PAGES:
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("block", _blocks())
def test_code_on_the_pages_runs_as_written(block, capsys):
    torch.manual_seed(0)
    loader = [{"pos": torch.randn(8, 5, 3), "forces": torch.randn(8, 5, 3)} for _ in range(3)]
    exec(block, {"model": Model(), "loader": loader})
    assert "% of the loss is equivariance error" in capsys.readouterr().out


def test_commands_on_the_pages_are_read_by_the_parser():
    text = "\n".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    commands = re.findall(r"^equiscope .*|(?<=`)equiscope [^`]+(?=`)", text, re.M)
    assert len(commands) >= 5
    for command in commands:
        cli.parser().parse_args(command.replace("NAME", "name").split()[1:])


def garbled(page):
    """Sentences of a built page that are cut by code, or joined where code was taken out."""
    found = re.findall(r"[^\s.]{2,}[.,;]:\s?\w[^<]{0,30}", re.sub(r"<(pre|code|script).*?</\1>", "", page, flags=re.S))
    for before in re.findall(r'<p>((?:(?!</p>).)*)</p>\s*<div class="highlight', page, re.S):
        text = re.sub(r"<[^>]*>", "", before).strip()
        if text and text[-1] not in ".:;!?)…":
            found.append(text[-60:])
    for after in re.findall(r"</pre></div>\s*</div>\s*<p>((?:(?!</p>).)*)</p>", page, re.S):
        if re.match(r"[a-z ,.;:]", re.sub(r"<[^>]*>", "", after)) and not after.startswith("<"):
            found.append(after[:60])
    return found


def test_garbled_sentences_are_found():
    block = '<div class="highlight-python notranslate"><div class="highlight"><pre>x</pre></div>\n</div>\n'
    assert garbled(f"<p>Times differ</p>\n{block}<p>Noise is drawn once.</p>") == ["Times differ"]
    assert garbled(f"<p>Times differ:</p>\n{block}<p>symmetry is learned early</p>") == ["symmetry is learned early"]
    assert garbled("<p>how a pooled figure weighs them.:A trained flow</p>")
    assert garbled(f"<p>Times differ:</p>\n{block}<p>Noise is drawn once.</p><p><code>a.:b</code> is code.</p>") == []


# On a busy machine examples, pages and browser take minutes.
@pytest.mark.timeout(900)
def test_the_site(tmp_path):
    """One test, so that the site is built once: complete, examples run, no network, good on a phone, real formulas."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).exists(), page
    for example in EXAMPLES:
        shown = (tmp_path / "gallery" / f"{example.stem}.html").read_text()
        assert "sphx-glr-script-out" in shown, example
        assert re.search(rf'href="[^"]*{example.stem}\.ipynb"', shown), example
        assert "site-packages" not in shown, "a warning of a library is no output of an example"
    api = (tmp_path / "api" / "measure.html").read_text()
    assert "Split a model" in api
    assert "RandomModelError" in api
    for page in tmp_path.rglob("*.html"):
        assert garbled(page.read_text()) == [], page
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', page.read_text()), page
    text = (tmp_path / "mathematics.html").read_text()
    assert text.count("<math") > 60
    assert "\\mathbb" not in re.sub(r'aria-label="[^"]*"', "", text)
    for name in ("index", "mathematics", "gallery/plain_module"):
        seen = browser.look(tmp_path / f"{name}.html", "phone", f"docs-{Path(name).name}")
        assert (seen.errors, seen.requests) == ([], [])
        assert seen.width <= seen.window
        assert seen.smallest_text >= 12
        assert name != "index" or seen.clipped == 0, "the front page's code does not fit its box"
