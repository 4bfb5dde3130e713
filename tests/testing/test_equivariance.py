"""assert_equivariant passes symmetric models at the noise floor, catches broken ones, and reports readably."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError, NonFiniteError, RandomModelError
from equiscope.testing import ConstantVector, LinearMap, assert_equivariant
from tests.testing.models import PairModel, batch, batches, declaration


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_a_symmetric_model_passes_at_the_noise_floor(dtype, seed):
    report = assert_equivariant(PairModel().to(dtype), batches(dtype=dtype), declaration(), seed=seed)
    assert [o.name for o in report.outputs] == ["forces", "energy"]
    unit = torch.finfo(dtype).eps
    # At least one rounding of the input and one of the output, each of variance unit^2 / 12.
    assert all(unit / 6**0.5 * o.size <= o.floor * 1.000001 < 40 * unit * o.size for o in report.outputs)
    assert report.samples == 12
    assert report.passes == 24


def test_an_e3nn_network_passes_at_the_noise_floor():
    from e3nn import o3

    product = o3.FullyConnectedTensorProduct("1x1o", "0e+1o+2e", "4x0e+4x1o+2x2e", shared_weights=True)

    def model(b):
        harmonics = o3.spherical_harmonics("0e+1o+2e", b["pos"], normalize=True)
        return {"features": product(b["pos"], harmonics)}

    chosen = eq.Declaration({"pos": "1o"}, {"features": "4x0e+4x1o+2x2e"}, mask="mask")
    for seed in range(3):
        assert_equivariant(model, batches(dtype=torch.float32), chosen, seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fault_of_a_thousandth_is_caught(dtype):
    with pytest.raises(AssertionError, match=r"not SO3 equivariant in \['forces'\]") as caught:
        assert_equivariant(PairModel("axis").to(dtype), batches(dtype=dtype), declaration())
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("(tolerance: noise floor; 24 rotations x 12 samples)")
    assert lines[1].split()[:2] == ["output", "irreps"]
    assert "BROKEN" in lines[2]
    assert "id " in lines[2]
    assert " ok " in lines[3]
    assert "rotated: pos as 1o about origin" in lines[4]


def test_a_relative_tolerance():
    model, given = PairModel("axis").double(), batches()
    found = assert_equivariant(model, given, declaration(), tolerance=0.1)
    relative = found.outputs[0].relative
    assert found.outputs[0].deviation == pytest.approx(1e-3 / 3**0.5, rel=1e-9)
    assert_equivariant(model, given, declaration(), tolerance=1.01 * relative)
    with pytest.raises(AssertionError, match="relative deviation"):
        assert_equivariant(model, given, declaration(), tolerance=0.99 * relative)


def test_figures_of_the_controls():
    chosen = eq.Declaration({"pos": "1o"}, {"vectors": "1o"}, mask="mask", ids="id")
    for control in (LinearMap(torch.diag(torch.tensor([2.0, 1.0, 1.0]))), ConstantVector(torch.ones(3))):
        found = assert_equivariant(control, [batch()], chosen, tolerance=1.0)
        each = control.equivariance_error(batch()["pos"], batch()["mask"])
        assert found.outputs[0].deviation == pytest.approx(float(each.mean().sqrt()), rel=1e-10)
        assert found.outputs[0].worst_deviation == pytest.approx(float(each.max().sqrt()), rel=1e-10)
        if isinstance(control, LinearMap):
            assert found.outputs[0].worst_id == int(batch()["id"][each.argmax()])


def test_labels_are_not_needed_and_losses_not_used():
    given = batch()
    outputs = {"forces": eq.Output("1o", target="forces", loss="l1")}
    chosen = eq.Declaration({"pos": "1o"}, outputs, mask="mask", clusters="molecule", ids="id")
    assert_equivariant(PairModel().double(), [given], chosen)
    given["forces"] = torch.full_like(given["pos"], torch.nan)
    assert_equivariant(PairModel().double(), [given], chosen)


def test_hint_at_the_centre():
    def about_the_mean(b):
        return {"vectors": (b["pos"] - b["pos"].mean(1, keepdim=True)) + b["pos"].mean(1, keepdim=True).norm()}

    def shifted(b):
        # Two faults, so that no centre helps.
        return {"vectors": about_the_mean(b)["vectors"] + b["pos"][..., [1, 0, 2]]}

    given = [{"pos": batch()["pos"]}]
    chosen = eq.Declaration({"pos": "1o"}, {"vectors": "1o"})

    def relative(b):
        offset = torch.tensor([5.0, 0, 0], dtype=torch.float64)
        middle = b["pos"].mean(1, keepdim=True)
        return {"vectors": (b["pos"] - middle) * (middle - offset).norm()}

    with pytest.raises(AssertionError, match=r"hint: .*declare center='mean'"):
        assert_equivariant(relative, given, chosen)
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(shifted, given, chosen)
    assert "hint" not in str(caught.value)


def test_hint_at_parity():
    def cross(b):
        return {"torque": torch.linalg.cross(b["pos"], b["pos"].roll(1, dims=1))}

    given = [{"pos": batch()["pos"]}]
    assert_equivariant(cross, given, eq.Declaration({"pos": "1o"}, {"torque": "1e"}, group="O3"))
    with pytest.raises(AssertionError, match="look at parities"):
        assert_equivariant(cross, given, eq.Declaration({"pos": "1o"}, {"torque": "1o"}, group="O3"))


def bonds(axis, extra):
    """Three atoms in a row along an axis, and a smooth model that adds ``extra`` where a bond lies exactly along y."""
    x = torch.zeros(1, 3, 3, dtype=torch.float64)
    x[0, :, axis] = torch.tensor([0.0, 1.16, -1.3])

    def model(b):
        apart = b["pos"][:, None] - b["pos"][:, :, None]
        along = (apart[..., [0, 2]].abs().sum(-1) < 1e-9) & (apart[..., 1].abs() > 1e-9)
        forces = (apart * torch.exp(-apart.square().sum(-1, keepdim=True))).sum(2)
        return {"forces": forces + extra * along.any(2)[..., None] * torch.eye(3, dtype=torch.float64)[0]}

    return model, [{"pos": x.clone()} for _ in range(4)], eq.Declaration({"pos": "1o"}, {"forces": "1o"})


def test_a_spurious_force_in_the_orientation_given_fails():
    assert_equivariant(*bonds(0, 1.0))
    assert_equivariant(*bonds(1, 0.0))
    with pytest.raises(AssertionError, match=r"BROKEN[\s\S]*answer as given stands apart: for 4 of 4 samples"):
        assert_equivariant(*bonds(1, 1.0))
    # RMS 1e-4 of forces of RMS 0.3; a tolerance is what it says.
    with pytest.raises(AssertionError, match="stands apart"):
        assert_equivariant(*bonds(1, 1e-4), tolerance=1e-5)
    assert_equivariant(*bonds(1, 1e-4), tolerance=1e-2)
    with pytest.raises(NonFiniteError, match="as given"):
        assert_equivariant(*bonds(1, float("nan")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wrapped", [False, True])
def test_ties_at_a_neighbour_limit_are_named(dtype, wrapped):
    class Nearest(torch.nn.Module):
        """Vectors to the k nearest: equal distances are chosen between by their rounding."""

        def __init__(self, count):
            super().__init__()
            self.count, self.scale = count, torch.nn.Parameter(torch.ones(1, dtype=dtype))

        def forward(self, b):
            apart = b["pos"][:, None] - b["pos"][:, :, None]
            far = apart.norm(dim=-1)
            kept = torch.zeros_like(far).scatter_(-1, far.topk(self.count, largest=False).indices, 1.0)
            return {"forces": ((kept * torch.exp(-self.scale * far))[..., None] * apart).sum(2)}

    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3).to(dtype)
    cubes = [{"pos": grid[None] * (1 + 0.1 * k)} for k in range(4)]
    chosen = eq.Declaration({"pos": "1o"}, {"forces": "1o"})

    def model(count):
        made = Nearest(count)
        return (lambda b: made(b)) if wrapped else made

    # All 27, or 10: of the 12 second neighbours of the middle 3 are left.
    assert_equivariant(model(27), cubes, chosen)
    with pytest.raises(AssertionError, match=r"discontinuous: ties at a neighbour limit, a cutoff, a sort\?"):
        assert_equivariant(model(10), cubes, chosen)
    result = eq.measure(model(10), cubes, chosen)
    assert result.distinguishable
    assert any(n.startswith("discontinuous") and "4 of 4 samples" in n for n in result.notes)
    # The jump is in the equivariance error, and not in the floor.
    assert result.relative_equivariance > 1e-3
    assert result.outputs["forces"].jump == pytest.approx(result.relative_equivariance**0.5, rel=0.5)
    assert result.noise_floor < 1e-9 * result.equivariance


def test_a_zero_output_is_named():
    chosen = eq.Declaration({"pos": "1o"}, {"vectors": "1o"})
    found = assert_equivariant(LinearMap(torch.zeros(3, 3)), [{"pos": batch()["pos"]}], chosen)
    assert found.outputs[0].relative == 0
    assert "zero output" in str(found)


def test_inputs_that_do_not_move_show_nothing():
    """Of a batch of zeros every model is equivariant."""
    for chosen in (declaration(), declaration(center="mean")):
        with pytest.raises(InputError, match="zero in every sample"):
            assert_equivariant(PairModel().double(), [{**batch(), "pos": 0 * batch()["pos"]}], chosen)


@pytest.mark.parametrize("tolerance", [-1, "floor", True, float("nan"), float("inf"), None, 5, 1.01, "0.1"])
def test_bad_tolerances(tolerance):
    with pytest.raises(InputError, match="tolerance must be 'noise floor' or a number"):
        assert_equivariant(PairModel().double(), batches(), declaration(), tolerance=tolerance)


def test_bad_input():
    model = PairModel().double()
    with pytest.raises(InputError, match="nothing to check"):
        assert_equivariant(model, [], declaration())
    with pytest.raises(InputError, match="at least 2 independent cosets"):
        assert_equivariant(model, batches(), declaration(), cosets=1)
    with pytest.raises(RandomModelError):
        assert_equivariant(PairModel("random").double(), batches(), declaration())


def test_generators_and_train_mode():
    model = PairModel().double().train()
    assert_equivariant(model, (b for b in batches()), declaration())
    assert model.training


@pytest.mark.parametrize(
    ("symmetry", "fault", "tolerance"),
    [("translation=3", "place", 1e-5), ("permutation", "order", "noise floor"), ("parity", "pseudo", "noise floor"),
     (("rotation", "translation=3"), "place", 1e-5)],
)  # fmt: skip
def test_other_symmetries(symmetry, fault, tolerance):
    class Faulty(PairModel):
        def forward(self, batch):
            found = super().forward(batch)
            if self.fault == "place":
                found["energy"] = found["energy"] + 1e-3 * batch["pos"][:, 0, 0]
            if self.fault == "pseudo":
                found["energy"] = found["energy"] + 1e-3 * torch.linalg.det(batch["pos"][:, :3])
            return found

    report = assert_equivariant(Faulty().double(), batches(), declaration(), tolerance, symmetry=symmetry)
    assert "the model is equivariant under" in str(report)
    with pytest.raises(AssertionError, match=r"not equivariant under .*energy"):
        assert_equivariant(Faulty(fault).double(), batches(), declaration(), tolerance, symmetry=symmetry)
