"""The Wiener filter: white fields have a closed form, no gain by shell does better, and it turns with its input."""

import torch

from equiscope.symmetry.grids import permute
from equiscope.symmetry.rotations import group
from equiscope.tasks.voxels.baseline import WienerFilter, _transformed


def fields(count=64, channels=2, size=6, seed=0):
    """Smooth random fields whose channels go together."""
    white = torch.randn(count, channels, size, size, size, generator=torch.Generator().manual_seed(seed))
    smooth = sum(white.roll(s, d) for d in (2, 3, 4) for s in (-1, 0, 1)) / 4
    smooth[:, 1] += 0.7 * smooth[:, 0]
    return smooth.double()


def noisy(clean, sigma=0.5, seed=1):
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_white_fields_are_scaled_by_their_share_of_the_variance():
    white = 2 * torch.randn(400, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = noisy(white[:3], 1.0)
    found = WienerFilter.fit([white[:200], white[200:]], 1.0)({"noisy": given})["clean"]
    # Shells of few wave vectors have a spread of their own, so the field as a whole is compared.
    assert float((found - 0.8 * given).norm() / given.norm()) < 0.02


def test_no_other_gain_by_shell_does_better():
    clean = fields()
    given = noisy(clean)
    model = WienerFilter.fit([clean], 0.5)
    ours = float((model({"noisy": given})["clean"] - clean).square().mean())
    # The least squares of each shell, channels together, for this very noise.
    seen, shells = _transformed(given)
    truth, _ = _transformed(clean)
    best = 0.0
    for shell in range(int(shells.max()) + 1):
        x, y = (one[:, :, shells == shell].transpose(1, 2).flatten(0, 1) for one in (seen, truth))
        x, y = torch.cat([x.real, x.imag]), torch.cat([y.real, y.imag])
        best += float((x @ torch.linalg.lstsq(x, y).solution - y).square().sum())
    best /= clean.numel()
    assert best <= ours < 1.01 * best
    assert ours < 0.7 * float((given - clean).square().mean())


def test_it_commutes_with_the_rotations_of_the_grid():
    clean = fields(4)
    model, given = WienerFilter.fit([clean], 0.5), noisy(clean)[:1]
    plain = model({"noisy": given})["clean"]
    for element in group("O").matrices:
        turn = element[None]
        torch.testing.assert_close(model({"noisy": permute(given, turn)})["clean"], permute(plain, turn))
    assert model({"noisy": given.float()})["clean"].dtype == torch.float32
