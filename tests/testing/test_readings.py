"""Re-readings: an exact model in each convention is named, a broken one never is."""

import itertools
import pickle
from dataclasses import replace

import pytest
import torch
from scipy.special import sph_harm_y

import equiscope as eq
from equiscope import Declaration, Input, Output
from equiscope.errors import InputError
from equiscope.testing import assert_equivariant, reread
from equiscope.testing.readings import readings, remembered

F64 = torch.float64


def points(samples=4, atoms=5, seed=0):
    return torch.randn(samples, atoms, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


def vectors(x):
    """Three vectors of each sample that turn with it."""
    return torch.stack([x[:, 0], x[:, 1] * x[:, 2].norm(dim=-1, keepdim=True), torch.linalg.cross(x[:, 0], x[:, 1])], 1)


def tensor(x):
    return torch.einsum("bni,bnj->bij", x, x)


def polar(degree, v):
    """Real harmonics r^l Y_lm with z as the polar axis, m = -l..l, from the complex ones of scipy (their phase off)."""
    radius = v.norm(dim=-1)
    theta, phi = torch.acos(v[..., 2] / radius).numpy(), torch.atan2(v[..., 1], v[..., 0]).numpy()
    found = []
    for m in range(-degree, degree + 1):
        complex_one = sph_harm_y(degree, abs(m), theta, phi) * (-1) ** abs(m) * (2**0.5 if m else 1)
        found.append(torch.from_numpy(complex_one.imag if m < 0 else complex_one.real))
    return torch.stack(found, -1) * radius[..., None] ** degree


def said(function, irreps, per="sample", **settings):
    """What a failed check of ``function(positions)`` says."""
    # Rows of a matrix are vectors where it is said.
    outputs = {"f": Output(irreps, per=per, points=False if irreps == "1o" else None)}
    declared = Declaration({"x": Input("1o", points=True)}, outputs, **settings)
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(lambda batch: {"f": function(batch["x"])}, [{"x": points()}], declared)
    return [line.strip() for line in str(caught.value).splitlines() if "read as" in line]


ORDERS = {"vasp": "00 11 22 01 12 02", "lammps": "00 11 22 01 02 12", "upper": "00 01 02 11 12 22",
          "lower": "00 01 11 02 12 22"}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_six_numbers_is_named(name):
    rows, columns = zip(*(map(int, pair) for pair in ORDERS[name].split()), strict=True)
    (hint,) = said(lambda x: tensor(x)[:, list(rows), list(columns)], "voigt")
    words = " ".join("xyz"[i] + "xyz"[j] for i, j in zip(rows, columns, strict=True))
    assert f"read as in the order {words} ({name}): reorder it to ASE's, values[..., [" in hint
    places = eval(hint.split("values[..., ")[1].split("]]")[0] + "]")
    ase = tensor(points())[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert torch.equal(tensor(points())[:, list(rows), list(columns)][:, places], ase)


@pytest.mark.parametrize(("name", "factor"), [("mandel", 2**0.5), ("engineering", 2.0)])
def test_factors_on_shears_are_named(name, factor):
    scale = torch.tensor([1, 1, 1, factor, factor, factor], dtype=F64)
    (hint,) = said(lambda x: tensor(x)[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * scale, "voigt")
    assert f"{name} shears" in hint


SIGNS = {"": lambda m: 1, ", signs (-1)^m": lambda m: (-1) ** abs(m),
         ", signs (-1)^m for m > 0": lambda m: -1 if m > 0 and m % 2 else 1}  # fmt: skip
PLACES = {"m = -l..l": [-2, -1, 0, 1, 2], "m = l..-l": [2, 1, 0, -1, -2], "m = 0, 1, -1, …": [0, 1, -1, 2, -2]}


@pytest.mark.parametrize(("order", "signs"), itertools.product(PLACES, SIGNS))
def test_harmonics_about_z_are_named(order, signs):
    places = PLACES[order]
    factors = torch.tensor([SIGNS[signs](m) for m in places], dtype=F64)
    (hint,) = said(lambda x: polar(2, x.sum(1))[:, [m + 2 for m in places]] * factors, "2e")
    assert f"real harmonics with z polar, {order}{signs}: declare testing.reread('2e'" in hint


def test_harmonics_of_several_degrees_and_vectors_left_as_they_are():
    def features(x, first):
        total = x.sum(1)
        return torch.cat([total.norm(dim=-1, keepdim=True), first(total), polar(2, total), polar(3, total)], -1)

    (hint,) = said(lambda x: features(x, lambda v: polar(1, v)), "0e+1o+2e+3o")
    assert "z polar, m = -l..l:" in hint
    (hint,) = said(lambda x: features(x, lambda v: v), "0e+1o+2e+3o")
    assert "z polar, m = -l..l, but l = 1 as x, y, z:" in hint


def test_multiplicity_last_is_named_alone_and_with_harmonics():
    scale = torch.linspace(0.2, 1, 4, dtype=F64)
    (hint,) = said(lambda x: (x.sum(1)[:, :, None] * scale).flatten(-2), "4x1o")
    assert "read as features with the multiplicity last (ir_mul): declare testing.reread('4x1o', 'ir_mul')" in hint
    (hint,) = said(lambda x: (polar(2, x.sum(1))[:, :, None] * scale).flatten(-2), "4x2e")
    assert "multiplicity last (ir_mul), real harmonics with z polar, m = -l..l" in hint


def test_columns_rows_and_flat_matrices_are_named():
    (hint,) = said(lambda x: vectors(x).mT, "1o")
    assert "three vectors, one in each column: give its transpose, values.mT" in hint
    (hint,) = said(lambda x: vectors(x).mT, "cartesian")
    assert "one in each column: give values.mT, declared '1o'" in hint
    (hint,) = said(vectors, "cartesian")
    assert "one in each row: declare eq.Output('1o', points=False)" in hint
    (hint,) = said(lambda x: tensor(x).flatten(1), "0e+1e+2e")
    assert "a 3 x 3 matrix, row after row" in hint
    (hint,) = said(lambda x: tensor(x)[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], "0e+2e")
    assert "a symmetric tensor in the order xx yy zz yz xz xy: declare 'voigt'" in hint


def test_parities_are_named():
    def handed(x):
        return torch.linalg.cross(x[:, 0], x[:, 1])

    (hint,) = said(handed, "1o", group="O3")
    assert "of the other parity, 1e: declare '1e'" in hint
    (hint,) = said(lambda x: torch.cat([x[:, 0], handed(x)], -1), "1o+1o", group="O3")
    assert "declare '1o+1e'" in hint


@pytest.mark.parametrize("irreps", ["voigt", "0e+2e", "2x1o", "1o+1e"])
def test_a_broken_model_is_given_no_reading(irreps):
    """Six numbers in a fixed frame, and an exact tensor with a small fixed part."""
    fixed = torch.linspace(-1, 1, 6, dtype=F64)
    assert said(lambda x: torch.tanh(tensor(x).flatten(1)[:, :6]) + fixed, irreps, group="O3") == []
    exact = {"voigt": lambda x: tensor(x)[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]}
    if irreps in exact:
        assert said(lambda x: exact[irreps](x) + 1e-3 * fixed, irreps) == []


def test_each_output_has_its_own_reading_and_broken_ones_none():
    def model(batch):
        x = batch["x"]
        return {"s": tensor(x)[:, [0, 1, 2, 0, 1, 0], [0, 1, 2, 1, 2, 2]], "f": x, "v": x.sum(1) ** 3}

    outputs = {"s": Output("voigt", per="sample"), "f": "1o", "v": Output("1o", per="sample")}
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(model, [{"x": points()}], Declaration({"x": "1o"}, outputs))
    hints = [line for line in str(caught.value).splitlines() if "read as" in line]
    assert len(hints) == 1
    assert "output 's'" in hints[0]


def test_inputs_alone_and_with_the_outputs_are_named():
    def rows(batch):
        return {"f": torch.einsum("bij,bi->bj", batch["cell"], batch["cell"].square().sum(-1))}

    batch = {"x": points(), "cell": points(4, 3, seed=1)}
    declared = Declaration({"x": "1o", "cell": Input("1o", points=False)}, {"f": Output("1o", per="sample")})
    declared = replace(declared, inputs={**declared.inputs, "x": Input("1o", points=True)})
    assert_equivariant(rows, [batch], declared)

    def turned(batch):
        return rows({**batch, "cell": batch["cell"].mT})

    with pytest.raises(AssertionError, match=r"exact with input 'cell' read as three vectors, one in each column"):
        assert_equivariant(turned, [batch], declared)

    def both(batch):
        # A tensor in LAMMPS' order in and out, symmetric part of its square.
        places = [[0, 3, 4], [3, 1, 5], [4, 5, 2]]
        s = batch["s"][:, places]
        return {"s": (s @ s)[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]}

    declared = Declaration({"s": "voigt"}, {"s": Output("voigt", per="sample")})
    with pytest.raises(AssertionError, match=r"exact with \['s', 's'\] read as in the order xx yy zz xy xz yz"):
        assert_equivariant(both, [{"s": points(4, 2).flatten(1)}], declared)


def test_a_reading_can_be_declared():
    vasp = Output(reread("voigt", "vasp"), per="sample")

    def model(batch):
        return {"s": tensor(batch["x"])[:, [0, 1, 2, 0, 1, 0], [0, 1, 2, 1, 2, 2]]}

    declared = Declaration({"x": "1o"}, {"s": vasp})
    assert_equivariant(model, [{"x": points()}], declared)
    assert eq.measure(model, [{"x": points()}], declared).relative_equivariance < 1e-25
    with pytest.raises(InputError, match="'gromacs' is no other reading of 'voigt': it has 'vasp', 'lammps'"):
        reread("voigt", "gromacs")


def test_every_reading_is_a_representation_and_none_is_the_declared_one():
    for irreps in ("voigt", "cartesian", "1o", "2x0e+3x1o+2e", "0e+2e", "9x0e"):
        spec = eq.Output(irreps).action
        g = torch.linalg.qr(points(3, 3)).Q
        for reading in readings(spec, "O3"):
            assert eq.Output(reading.action).action is reading.action
            x = torch.randn(3, 2, *reading.action.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
            if reading.action.shape == spec.shape:
                turned = torch.cat([reading.action.act(sign * g, x) for sign in (1, -1)])
                assert not torch.allclose(turned, torch.cat([spec.act(sign * g, x) for sign in (1, -1)]))
            assert torch.equal(pickle.loads(pickle.dumps(reading.action)).act(g, x), reading.action.act(g, x))


@pytest.mark.parametrize("batch", [points(), (points(),), {"x": points()}], ids=["tensor", "tuple", "dict"])
def test_models_that_take_a_tensor_are_read_too(batch):
    declared = Declaration({"x": Input("1o", points=True)}, {"s": Output("voigt", per="sample")}, fields=["x"])

    def model(x):
        return {"s": tensor(x)[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]}

    with pytest.raises(AssertionError, match=r"'s' is exact read as in the order .* \(lammps\)"):
        assert_equivariant(model, [batch], declared)


def test_passes_are_remembered():
    calls = []

    def model(batch):
        calls.append(1)
        return {"f": batch["x"] * 2, "other": batch["x"]}

    declared = Declaration({"x": "1o"}, {"f": "1o"}, fixed=("charge",))
    called = remembered(None, declared)
    batch = {"x": points(), "charge": torch.zeros(4)}
    first = called(model, batch)
    assert called(model, {**batch, "x": points()}) is first
    assert list(first) == ["f"]
    assert called(model, {**batch, "charge": torch.ones(4)}) is not first
    assert called(model, {**batch, "x": points().float()}) is not first
    assert len(calls) == 3
