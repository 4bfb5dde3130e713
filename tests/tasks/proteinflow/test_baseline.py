"""The Gaussian chain: the conditional mean of Gaussian chains, by the normal equations, and no worse than any other."""

import numpy as np
import torch

from equiscope.symmetry.rotations import haar
from equiscope.tasks.proteinflow.baseline import GaussianChain, cosines
from equiscope.tasks.proteinflow.flow import centre


def walks(count, residues=12, seed=0):
    """Random walks of unit steps a coordinate, centred: d(s) = s."""
    steps = torch.randn(count, residues, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = steps.cumsum(1)
    return points - points.mean(1, keepdim=True)


def batch(chains, t, seed=1):
    mask = torch.ones(chains.shape[:2], dtype=torch.bool)
    noise = torch.randn(chains.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = centre(noise, mask)
    return {"x_t": (1 - t) * noise + t * chains, "t": torch.full((len(chains),), t, dtype=torch.float64), "mask": mask,
            "velocity": chains - noise}  # fmt: skip


def walk_model(points=4000):
    """The closed form of a random walk of unit steps, λ(q) = 1 / (4 sin²(π q / 2))."""
    q = torch.logspace(-3, 0, points, dtype=torch.float64)
    return GaussianChain(q, 1 / (4 * torch.sin(torch.pi * q / 2) ** 2))


def test_variances_of_a_random_walk():
    model = GaussianChain.fit(list(walks(3000, 12)) + list(walks(3000, 40)))
    due = walk_model().modes(40)[0].numpy()
    np.testing.assert_allclose(model.modes(40)[0].numpy(), due, rtol=0.1)


def test_modes_are_orthonormal_and_centred():
    modes = cosines(9)
    np.testing.assert_allclose((modes @ modes.T).numpy(), np.eye(8), atol=1e-14)
    np.testing.assert_allclose(modes.sum(1).numpy(), 0, atol=1e-14)


def test_it_is_the_conditional_mean_of_a_gaussian_chain():
    n, t = 12, 0.3
    model = walk_model()
    # Covariance of a centred walk, by hand: C = P L Lᵀ P with L the sums of steps.
    project, sums = np.eye(n) - 1 / n, np.tril(np.ones((n, n)))
    chain = project @ sums @ sums.T @ project
    cross, seen = t * chain - (1 - t) * project, t**2 * chain + (1 - t) ** 2 * project
    given = batch(walks(3), t)
    due = np.einsum("ij,bjc->bic", cross @ np.linalg.pinv(seen), given["x_t"].numpy())
    np.testing.assert_allclose(model(given)["velocity"].numpy(), due, rtol=1e-5, atol=1e-6)


def test_no_linear_map_of_the_training_set_does_better_on_its_own_law():
    given = batch(walks(20000, seed=3), 0.5, seed=4)
    model = walk_model()
    ours = float((model(given)["velocity"] - given["velocity"]).square().mean())
    x, v = (given[k].transpose(1, 2).reshape(-1, 12).numpy() for k in ("x_t", "velocity"))
    best = x @ np.linalg.lstsq(x, v, rcond=None)[0]
    assert ours < 1.002 * float(((best - v) ** 2).mean())


def test_chains_of_several_lengths_padding_and_rotations():
    model = walk_model()
    long, short = batch(walks(2), 0.9), batch(walks(1, 7), 0.9)
    padded = {"x_t": torch.zeros(3, 12, 3, dtype=torch.float64), "mask": torch.zeros(3, 12, dtype=torch.bool),
              "t": torch.full((3,), 0.9, dtype=torch.float64)}  # fmt: skip
    padded["x_t"][[0, 2]], padded["mask"][[0, 2]] = long["x_t"], True
    padded["x_t"][1, :7], padded["mask"][1, :7] = short["x_t"][0], True
    found = model(padded)["velocity"]
    torch.testing.assert_close(found[[0, 2]], model(long)["velocity"])
    torch.testing.assert_close(found[1, :7], model(short)["velocity"][0])
    assert float(found[1, 7:].abs().sum()) == 0.0
    turn = haar(1, torch.Generator().manual_seed(2))[0]
    torch.testing.assert_close(model({**padded, "x_t": padded["x_t"] @ turn.T})["velocity"], found @ turn.T)
