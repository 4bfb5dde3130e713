"""Several symmetries in nested order: each part in closed form, without bias, for any order and number of families."""

import itertools

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from tests.decomposition.models import random_batch, repeated, z_score

X = random_batch(samples=1, atoms=3, seed=2)["pos"][0]
C = torch.tensor([0.4, -0.3, 0.8], dtype=torch.float64)
D = torch.tensor([-0.2, 0.5, 0.1], dtype=torch.float64)
RADIUS = 1.2


def parts_of(model, symmetry, count=2000, **settings):
    """Per-repeat parts, and the total; read from the table that Results are pooled from."""
    from equiscope.decomposition.collect import Collector
    from equiscope.decomposition.plan import make_plan
    from equiscope.symmetry.declaration import declare

    declared = declare({"pos": "1o"}, {"e": eq.Output("0e", per="sample")})
    collector = Collector(model, make_plan(declared, symmetry=symmetry, **settings), 1)
    collector.run(repeated({"pos": X}, count))
    return collector.samples().figures["e"]


def check(found, truth):
    for column, value in enumerate(truth):
        part = found.parts[:, column]
        if float(part.abs().max()) < 1e-20 or float(part.std()) < 1e-9 * abs(value):
            assert float(part.mean()) == pytest.approx(value, rel=1e-9, abs=1e-12)
        else:
            assert abs(z_score(part, value)) < 4, column
    assert torch.allclose(found.parts.sum(-1), found.equivariance)


def volume(b):
    return torch.linalg.det(b["pos"])


def test_a_vector_and_a_volume_under_rotations_and_parity():
    """e = c x_1 + det: rotations |c|^2 |x|^2 / 3; parity then det^2, and before them (c x)^2 + det^2 + 2 c x det."""

    def model(b):
        return {"e": b["pos"][:, 0] @ C + volume(b)}

    vector, det = float(C @ C * (X[0] @ X[0]) / 3), float(torch.linalg.det(X)) ** 2
    check(parts_of(model, ("rotation", "parity")), [vector, det])
    check(parts_of(model, ("rotation", "parity"), cosets=2, rotations="haar"), [vector, det])
    # In the other order parity finds both, and rotations nothing in the rest, which is even.
    check(parts_of(model, ("parity", "rotation")), [vector + det, 0.0])


def three(b):
    """Linear in a rotation, and what no rotation sees, of which order and place matter."""
    first, second = b["pos"][:, 0], b["pos"][:, 1]
    apart = (first - second).square().sum(-1)
    return {"e": (first - second) @ C + first @ D + apart + first.square().sum(-1)}


def closed_form(families):
    """Parts of ``three`` in closed form: rotations, orders of three atoms, shifts x + t, t uniform in a ball."""
    t2 = RADIUS**2 / 5
    pairs = torch.stack([torch.stack([X[i], X[j]]) for i, j in itertools.permutations(range(3), 2)])
    u, w = pairs[:, 0] - pairs[:, 1], pairs[:, 0]
    u2, uw, w2 = (u * u).sum(1), (u * w).sum(1), (w * w).sum(1)
    # Var over R of c R u + d R w = (|c|^2 |u|^2 + |d|^2 |w|^2 + 2 (c d)(u w)) / 3, w shifted by t.
    turned = (C @ C * u2 + D @ D * (w2 + 3 * t2) + 2 * (C @ D) * uw) / 3
    # |u|^2 + |w + t|^2 over orders, t fixed, then averaged: its part along t is 2 t w.
    plain = (u2 + w2).var(correction=0)
    along = 4 * t2 * w.var(0, correction=0).sum()
    middle = w.mean(0)
    shifts = 4 * t2 * middle @ middle + 3 * RADIUS**4 / 7 - 9 * t2**2
    return [float(turned.mean()), float(plain + along), float(shifts)][:families]


def test_three_families_of_closed_form():
    families = ("rotation", "permutation", f"translation={RADIUS}")
    check(parts_of(three, families), closed_form(3))


def test_every_order_has_the_same_whole_by_brute_force():
    """The whole does not depend on the order in which it is taken apart, if the moves commute: by counting."""
    families = ("parity", "permutation")

    def model(b):
        return {"e": torch.tanh(b["pos"][:, 0] @ C + b["pos"][:, 1] @ D) + b["pos"][:, 2, 0]}

    values = torch.stack(
        [
            torch.stack([model({"pos": sign * X[list(order)][None]})["e"][0] for sign in (1.0, -1.0)])
            for order in itertools.permutations(range(3))
        ]
    )
    whole = float(values.var(correction=0))
    first = float(values.var(1, correction=0).mean())
    check(parts_of(model, families), [first, whole - first])
    other = float(values.var(0, correction=0).mean())
    check(parts_of(model, families[::-1]), [other, whole - other])


def test_whole_families_in_the_middle_and_mirrors_outside():
    """Parity drawn with replacement between others; a mirror's place drawn for each sample."""

    def model(b):
        return {"e": b["pos"][:, 0] @ C + volume(b) * (1 + b["pos"][:, 1].square().sum(-1))}

    det = torch.linalg.det(X)
    size = X.square().sum(-1)
    vector = float(C @ C * size.mean() / 3)
    # Orders of atoms change the sign of det in half of the cases, and |x_2|^2.
    values = det * (1 + size)
    parity = float(values.square().mean())
    check(parts_of(model, ("rotation", "parity", "permutation")), [vector, parity, 0.0])
    check(parts_of(model, ("rotation", "mirror")), [float(C @ C * size[0] / 3), float((det * (1 + size[1])) ** 2)])


def test_the_result_says_the_shares():
    batch = random_batch(samples=40) | {"id": torch.arange(40)}

    def model(b):
        return {"f": torch.tanh(b["pos"]) + 0.05 * b["pos"][:, :1]}

    declared = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}, "target": "y"}
    found = eq.measure(model, [batch], symmetry=("rotation", "permutation"), ids="id", **declared)
    assert found.by_symmetry["symmetries"] == ["rotation", "permutation"]
    assert sum(found.by_symmetry["share"]) == pytest.approx(1)
    assert all(0 < e < 0.2 for e in found.by_symmetry["error"])
    assert "rotation: " in str(found)
    assert "permutation, what the averages before leave: " in str(found)
    assert found.passes == 36
    again = eq.Result.from_dict(found.to_dict())
    assert again.by_symmetry == found.by_symmetry
    assert str(again) == str(found)
    # This model is odd: rotations are all of its error, as much as the plain measure says.
    odd = eq.measure(model, [batch], symmetry=("rotation", "parity"), ids="id", cosets=10, **declared)
    plain = eq.measure(model, [batch], ids="id", cosets=20, **declared)
    assert odd.by_symmetry["share"] == pytest.approx([1, 0], abs=0.01)
    assert odd.equivariance == pytest.approx(plain.equivariance, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, "takes variances apart, which only squared error has"),
        ({"rtol": 0.1}, "rtol adds cosets"),
        ({"spectrum": True}, "spectrum and shift=False are of rotations: leave them out"),
        ({"cosets": 1.5}, "cosets must be an integer"),
    ],
)
def test_what_several_cannot_give(settings, message):
    with pytest.raises(InputError, match=message):
        eq.measure(
            lambda b: {"f": b["pos"]}, [random_batch()], symmetry=("rotation", "parity"), inputs={"pos": "1o"},
            outputs={"f": "1o"}, target="y", **settings,
        )  # fmt: skip
