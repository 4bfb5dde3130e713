"""assert_equivariant passes symmetric models at the noise floor, catches broken ones, and reports readably."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError, RandomModelError
from equiscope.testing import ConstantVector, LinearMap, assert_equivariant
from tests.testing.models import PairModel, batch, batches, declaration


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_a_symmetric_model_passes_at_the_noise_floor(dtype, seed):
    report = assert_equivariant(PairModel().to(dtype), batches(dtype=dtype), declaration(), seed=seed)
    assert [o.name for o in report.outputs] == ["forces", "energy"]
    unit = torch.finfo(dtype).eps
    assert all(4 * unit * o.size <= o.floor < 40 * unit * o.size for o in report.outputs)
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


def test_a_zero_output_is_named():
    chosen = eq.Declaration({"pos": "1o"}, {"vectors": "1o"})
    found = assert_equivariant(LinearMap(torch.zeros(3, 3)), [{"pos": batch()["pos"]}], chosen)
    assert found.outputs[0].relative == 0
    assert "zero output" in str(found)


@pytest.mark.parametrize("tolerance", [-1, "floor", True, float("nan"), float("inf"), None])
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
