"""assert_declared_symmetry_complete names the forgotten cell, field or stress, and nothing that is rightly fixed."""

import pytest
import torch

import equiscope as eq
from equiscope.testing import assert_declared_symmetry_complete
from equiscope.testing.completeness import _trial
from tests.testing.models import batch


def given(samples=8):
    g = torch.Generator().manual_seed(4)
    made = batch(samples=samples)
    cell = 4 * torch.eye(3, dtype=torch.float64) + 0.5 * torch.randn(samples, 3, 3, generator=g, dtype=torch.float64)
    field = torch.randn(samples, 3, generator=g, dtype=torch.float64)
    stress = torch.randn(samples, 6, generator=g, dtype=torch.float64)
    shifts = torch.randint(-1, 2, (samples, 4, 3), generator=g)
    edges = torch.randint(0, 2, (samples, 4, 2), generator=g)
    extra = {"cell": cell, "field": field, "stress": stress, "time": torch.rand(samples, 1, dtype=torch.float64)}
    return [{**made, **extra, "shifts": shifts, "edges": edges, "other": made["pos"].flip(0) + 1}]


def periodic(b):
    """Forces along the edges of periodic neighbours: positions and cell turn together, integer shifts do not."""
    ends = b["pos"].gather(1, b["edges"].flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, (4, 2))
    delta = ends[:, :, 0] - ends[:, :, 1] + b["shifts"].to(b["cell"]) @ b["cell"]
    return {"forces": delta.sum(1) * b["time"]}


def declared(*fixed, inputs=None, **settings):
    rest = {"cell", "field", "stress", "time", "other"} - set(inputs or {}) - {settings.get("center")}
    return eq.Declaration(
        {"pos": "1o", **(inputs or {})}, {"forces": eq.Output("1o", per="sample")}, fixed=sorted(rest), **settings
    )


CELL = {"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False)}


def test_the_forgotten_cell():
    with pytest.raises(AssertionError, match="did you forget the cell") as caught:
        assert_declared_symmetry_complete(periodic, given(), declared())
    text = str(caught.value)
    assert text.startswith("fields ['cell'] are held fixed but belong to the symmetry")
    assert "'cell' as vectors ('1o')" in text
    assert "declare inputs={…, 'cell': eq.Input(irreps='1o', points=False)}" in text


def test_a_complete_declaration_passes_and_lists_what_was_tried():
    found = assert_declared_symmetry_complete(periodic, given(), declared(inputs=CELL))
    assert {t.fields for t in found.trials} == {("field",), ("stress",), ("other",), ("field", "other", "stress")}
    assert not any(t.forgotten for t in found.trials)
    # Integers, edge lists and masks are invariant and never turned.
    assert found.invariant == ("edges", "id", "mask", "shifts", "species")
    assert "did you forget" not in str(found.trials[0])


@pytest.mark.parametrize(
    ("name", "way", "model"),
    [
        ("field", "vectors", lambda b: {"forces": b["pos"].sum(1) + b["field"]}),
        ("other", "vectors", lambda b: {"forces": torch.linalg.cross(b["pos"], b["other"]).sum(1)}),
        ("stress", "a stress in Voigt order", lambda b: {"forces": _voigt(b["stress"]) @ b["pos"][:, 0, :, None]}),
        ("cell", "a rank-2 tensor", lambda b: {"forces": b["cell"] @ b["pos"][:, 0, :, None]}),
    ],
)
def test_each_kind_of_field(name, way, model):
    def called(b):
        return {"forces": model(b)["forces"].reshape(-1, 3)}

    with pytest.raises(AssertionError, match=f"'{name}' as {way}") as caught:
        assert_declared_symmetry_complete(called, given(), declared())
    assert f"fields ['{name}'] are held fixed" in str(caught.value)


def _voigt(s):
    rows = [[s[:, 0], s[:, 5], s[:, 4]], [s[:, 5], s[:, 1], s[:, 3]], [s[:, 4], s[:, 3], s[:, 2]]]
    return torch.stack([torch.stack(r, -1) for r in rows], -2)


def test_flattened_cell():
    data = given()
    data[0]["cell"] = data[0]["cell"].flatten(1)

    def model(b):
        return periodic({**b, "cell": b["cell"].unflatten(1, (3, 3))})

    with pytest.raises(AssertionError, match=r"'cell' as three vectors \('3x1o'\).*did you forget the cell"):
        assert_declared_symmetry_complete(model, data, declared())


def test_second_positions_turn_about_the_centre():
    def model(b):
        return {"forces": (b["pos"] - b["other"]).sum(1) * (b["pos"] - b["other"]).square().sum((1, 2))[:, None]}

    with pytest.raises(AssertionError, match=r"'other' as positions \('1o'\)") as caught:
        assert_declared_symmetry_complete(model, given(), declared(center="mean"))
    assert "points=True" in str(caught.value)


def test_two_fields_that_only_work_together():
    def model(b):
        field, cell = b["field"], b["cell"]
        return {"forces": torch.linalg.cross(field, cell[:, 0]) * (field * cell[:, 1]).sum(1, keepdim=True)}

    with pytest.raises(AssertionError, match=r"fields \['cell', 'field'\] are held fixed") as caught:
        assert_declared_symmetry_complete(model, given(), declared())
    assert "did you forget the cell and 'field'?" in str(caught.value)


def test_a_broken_model_is_not_blamed_on_its_inputs():
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(b):
        return {"forces": b["pos"].sum(1) @ matrix + 0.1 * b["field"][:, [1, 0, 2]]}

    found = assert_declared_symmetry_complete(model, given(), declared())
    assert len(found.trials) == 6


@pytest.mark.parametrize(
    ("before", "after", "allowed", "forgotten"),
    [
        ([1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1], 0.0, True),
        ([1, 1, 1, 1], [0.1, 0.1, 0.1, 1.1], 0.0, True),
        ([100, 1, 1, 1], [1, 2, 2, 2], 0.0, False),  # one sample's luck
        ([1, 1, 1, 100], [0.1, 0.1, 0.1, 100], 0.0, False),  # most samples, but not most of the error
        ([1, 1, 1, 1], [0.6, 0.6, 0.6, 0.6], 0.0, False),
        ([1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1], 1.5, False),  # no more than rounding explains
        ([0, 0, 0, 0], [0, 0, 0, 0], 0.0, False),
    ],
)
def test_what_counts_as_forgotten(before, after, allowed, forgotten):
    values = [{"forces": torch.tensor(v, dtype=torch.float64)} for v in (before, after)]
    assert _trial({"cell": eq.Input("1o")}, *values, {"forces": allowed}).forgotten is forgotten


def test_labels_are_not_inputs():
    data = given()
    data[0]["forces"] = data[0]["field"].clone()
    outputs = {"forces": eq.Output("1o", target="forces", per="sample")}
    fixed = ["cell", "field", "stress", "time", "other"]
    chosen = eq.Declaration({"pos": "1o"}, outputs, fixed=fixed)

    def peeks(b):
        return {"forces": b["forces"] + b["pos"].sum(1)}

    found = assert_declared_symmetry_complete(peeks, data, chosen)
    assert not any("forces" in t.fields for t in found.trials)
