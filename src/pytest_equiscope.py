"""The pytest plugin that comes with equiscope: the fixture ``equivariance`` and a report of what it measured.

    def test_my_model(equivariance):
        equivariance(model, batches, inputs={"pos": "1o"}, outputs={"forces": "1o"})

    pytest --equivariance-report

It stands beside the package, so that neither equiscope nor torch is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

PROPERTY = "equivariance"
"""Name of the reports' properties that hold what was found; they travel with them, to JUnit files too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("equiscope")
    said = "show what the fixture equivariance found, also where it passed"
    group.addoption("--equivariance-report", action="store_true", help=said)


@pytest.fixture
def equivariance(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``equivariance(model, batches, declaration, tolerance="noise floor", forward=None, …)`` asserts and reports.

    As :func:`equiscope.testing.assert_equivariant`; in place of a declaration its fields may be given, ``inputs=`` and
    ``outputs=`` and so on. Every model checked in a test is named in the report.
    """
    from equiscope.decomposition.measure import resolve_declaration
    from equiscope.symmetry.declaration import Declaration
    from equiscope.testing import assert_equivariant

    own = {"tolerance", "forward", "rotations", "cosets", "seed", "symmetry"}

    def check(
        model: Any,
        batches: Iterable[Any],
        declaration: Declaration | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        declared = {k: v for k, v in settings.items() if k not in own}
        resolved = resolve_declaration(declaration, inputs, outputs, declared.pop("target", None), "mse", declared)
        kept = request.node.user_properties
        try:
            found = assert_equivariant(model, batches, resolved, **{k: v for k, v in settings.items() if k in own})
        except AssertionError as error:
            kept.append((PROPERTY, str(error)))
            raise
        kept.append((PROPERTY, str(found)))
        return found

    return check


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    # Of the reports, not of this process: under pytest-xdist tests run in others.
    ends = [r for kind in terminalreporter.stats.values() for r in kind if getattr(r, "when", None) == "teardown"]
    found = [(report.nodeid, said) for report in ends for name, said in report.user_properties if name == PROPERTY]
    if not found or not config.getoption("--equivariance-report"):
        return
    terminalreporter.section("equivariance")
    for test, said in found:
        terminalreporter.write_line(f"{test}: {said}")
