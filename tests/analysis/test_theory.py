"""The closed forms of docs/theory.md: rotations act on parameters of closed networks; linear models by simulation."""

import copy
import math

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.symmetry.grids import permute
from equiscope.symmetry.rotations import haar, rotation_set
from equiscope.tasks.forcefield.task import FORCES
from equiscope.tasks.proteinflow.task import declaration
from equiscope.tasks.voxels.probes import octahedral_declaration
from equiscope.tasks.voxels.unet import UNet, UNetConfig
from tests.tasks.proteinflow import common

from .batches import build, molecular_batch

# Columns that multiply raw vectors, and rows that answer one.
VECTORS = 2  # of the linear model: f(v_1, v_2) = W [v_1, v_2], W (3, 6), v_k unit Gaussians
CURVATURE = 2 / 3  # of |W v - y|^2 / 3 along every entry of W
PARAMETERS, SYMMETRIC = 9 * VECTORS, VECTORS
BROKEN = PARAMETERS - SYMMETRIC


def turned(weight, h, first=0):
    """W -> W h^T on every three columns from ``first`` on."""
    made = weight.clone()
    blocks = made[:, first:].unflatten(1, (-1, 3))
    made[:, first:] = (blocks @ h.T).flatten(1)
    return made


def rho(net, h):
    """The weights of h f(h^-1 x), by what meets the laboratory frame alone."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        if hasattr(made, "read_noisy"):
            for layer in (made.read_noisy, made.read_guess, made.read_local):
                if layer is not None:
                    layer.weight.copy_(turned(layer.weight, h))
            made.head[1].weight.copy_(h @ made.head[1].weight)
        else:
            for layer in made.layers:
                layer.geometry.weight.copy_(turned(layer.geometry.weight, h, first=made.config.radial))
            made.head.weight[1:4] = h @ made.head.weight[1:4]
            made.head.bias[1:4] = h @ made.head.bias[1:4]
    return made


CLOSED = {
    "edge transformer": (lambda: build("edge_transformer"), molecular_batch, FORCES, ("pos",), "forces"),
    "proteina": (
        lambda: common.make("proteina", neighbours=2).double(), common.batch, declaration(), ("x_t", "x_sc"), "velocity"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED)
def test_rotations_act_on_the_parameters_of_closed_networks(name):
    make, batch_of, declared, fields, output = CLOSED[name]
    net, batch = make(), batch_of()
    (h,) = haar(1, torch.Generator().manual_seed(3))
    back = {**batch, **{field: batch[field] @ h for field in fields}}
    with torch.no_grad():
        torch.testing.assert_close(rho(net, h)(batch)[output], net(back)[output] @ h.T, rtol=1e-10, atol=1e-10)
    # A rotation h of the set K turns its cosets into themselves, so that the estimates agree without any error.
    h = rotation_set("T").matrices[4].double()
    assert not torch.allclose(h, torch.eye(3, dtype=torch.float64))
    plain, moved = (eq.measure(one, [batch], declared, rotations="T", cosets=2) for one in (net, rho(net, h)))
    assert plain.equivariance > 1e-6 * plain.total
    for part in ("total", "twirled", "equivariance"):
        assert getattr(moved, part) == pytest.approx(getattr(plain, part), rel=1e-10)


def test_no_head_of_escaip_answers_for_the_turned_network():
    """h f(h^-1 x) = m sum_j h diag(a_j) h^-1 d_j: no rows a_j of another head give that unless h permutes the axes."""
    net, batch = build("escaip"), molecular_batch(sizes=(8,) * 8)  # more components than a head has weights
    cyclic = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    (generic,) = haar(1, torch.Generator().manual_seed(3))
    weight = next(net.force_head.parameters())

    def answers(head):
        with torch.no_grad():
            before = weight.clone()
            weight.copy_(head)
            found = net(batch)["forces"].flatten()
            weight.copy_(before)
        return found

    own = weight.detach().clone()
    zero = answers(torch.zeros_like(own))
    basis = torch.eye(own.numel(), dtype=torch.float64).view(-1, *own.shape)
    columns = torch.stack([answers(one) - zero for one in basis], dim=1)
    for h, reached in ((cyclic, True), (generic, False)):
        with torch.no_grad():
            goal = (net({**batch, "pos": batch["pos"] @ h})["forces"] @ h.T).flatten() - zero
        rest = goal - columns @ torch.linalg.lstsq(columns, goal, driver="gelsd").solution
        missing = float(rest.norm() / goal.norm())
        assert (missing < 1e-8) if reached else (missing > 1e-3), (missing, reached)


TAPS = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)


def turned_kernels(h):
    """(T, rest): the linear map of 3^3 kernels whose answers to plane waves come closest to those of turned waves.

    A kernel w answers exp(i k x) by sum_a w_a exp(i k a), and the wave turned back by h by sum_a w_a exp(i k h a): any
    action of rotations on kernels solves E T = E_h for every k; rest is what the best T leaves, relative.
    """
    waves = 4 * torch.rand(400, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 2
    own, goal = (torch.exp(1j * (waves @ taps.T)) for taps in (TAPS, TAPS @ h.T))
    own, goal = (torch.cat([e.real, e.imag]) for e in (own, goal))
    found = torch.linalg.lstsq(own, goal, driver="gelsd").solution
    return found, float((own @ found - goal).norm() / goal.norm())


def test_rotations_of_the_grid_alone_act_on_the_kernels_of_a_voxel_network():
    """The best linear map of kernels is exact for the 24, and for no other rotation; there it changes the losses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = UNet(UNetConfig(width=4, multipliers=(1, 2), attention=(False, True), heads=2, groups=2, channels=2))
    net = net.double().eval()
    noisy, clean = torch.randn(2, 3, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = {"noisy": noisy, "clean": clean, "molecule": torch.arange(3), "id": torch.arange(3)}
    cubic = rotation_set("O").matrices[7].double()
    generic = haar(1, torch.Generator().manual_seed(3))[0].double()

    def rho(h):
        made, (matrix, rest) = copy.deepcopy(net), turned_kernels(h)
        with torch.no_grad():
            for layer in made.modules():
                if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size == (3, 3, 3):
                    layer.weight.copy_((layer.weight.flatten(2) @ matrix.T).view_as(layer.weight))
        return made, rest

    def losses(one):
        found = eq.measure(one, [batch], octahedral_declaration(8), rotations="O")
        return [found.total, found.twirled, found.equivariance]

    plain = losses(net)
    assert plain[2] > 1e-6 * plain[0]
    moved, rest = rho(cubic)
    assert rest < 1e-12
    assert losses(moved) == pytest.approx(plain, rel=1e-10)
    with torch.no_grad():
        back = net({**batch, "noisy": permute(noisy, cubic.T.expand(3, 3, 3))})["clean"]
        torch.testing.assert_close(moved(batch)["clean"], permute(back, cubic.expand(3, 3, 3)), rtol=1e-10, atol=1e-12)
    moved, rest = rho(generic)
    assert rest > 0.01
    changes = [abs(new / old - 1) for new, old in zip(losses(moved), plain, strict=True)]
    assert changes[0] > 1e-4  # most of it is the labels' own power
    assert changes[2] > 1e-2


def parts_of(w):
    """(twirled, broken) coordinates of W (..., 3, 6) in orthonormal directions: identity blocks, and what is left."""
    blocks = w.reshape(*w.shape[:-1], VECTORS, 3)
    trace = np.einsum("...ikj,ij->...k", blocks, np.eye(3)) / 3
    symmetric = np.einsum("...k,ij->...ikj", trace, np.eye(3)).reshape(w.shape)
    return symmetric, w - symmetric


def error_of(w):
    """L_E of W: mean square of its broken part a component, for unit Gaussian vectors."""
    return float((parts_of(w)[1] ** 2).sum((-1, -2)).mean()) / 3


def simulated(step, steps, burn, batch=4, chains=384, average=0.0, seed=0):
    """Mean L_E of chains of W and of their averages, trained on fresh batches of y = (v_1 - v_2) + unit noise."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    w, mean = np.tile(truth, (chains, 1, 1)), np.tile(truth, (chains, 1, 1))
    weights, averages = [], []
    for count in range(1, steps + 1):
        v = rng.normal(size=(chains, batch, 3 * VECTORS))
        residual = v @ (w - truth).transpose(0, 2, 1) - rng.normal(size=(chains, batch, 3))
        gradient = 2 / 3 * residual.transpose(0, 2, 1) @ v / batch
        w = w - step(gradient, count)
        mean = average * mean + (1 - average) * w
        if count > burn:
            weights.append(error_of(w))
            averages.append(error_of(mean))
    return np.mean(weights), np.mean(averages)


def descent(rate, momentum=0.0):
    state = {"m": 0.0}

    def step(gradient, count):
        state["m"] = momentum * state["m"] + gradient
        return rate * state["m"]

    return step


def adam(rate, betas=(0.9, 0.999)):
    m, v = [0.0], [0.0]

    def step(gradient, count):
        m[0] = betas[0] * m[0] + (1 - betas[0]) * gradient
        v[0] = betas[1] * v[0] + (1 - betas[1]) * gradient**2
        return rate * (m[0] / (1 - betas[0] ** count)) / np.sqrt(v[0] / (1 - betas[1] ** count))

    return step


def test_the_floor_of_sgd_of_momentum_and_of_averaged_weights():
    rate, batch, decay = 0.03, 4, 0.98
    due = rate / (2 * 3 * batch) * BROKEN * CURVATURE  # residual of unit variance
    found, averaged = simulated(descent(rate), 700, 300, average=decay)
    assert found == pytest.approx(due, rel=0.05)
    assert averaged == pytest.approx(due / (1 + rate * CURVATURE / (1 - decay)), rel=0.05)
    found, _ = simulated(descent(rate / 10, momentum=0.9), 700, 300, seed=1)
    assert found == pytest.approx(due, rel=0.05)


def test_the_floor_of_adam():
    rate, batch = 0.003, 4
    noise = 2 / (3 * batch)  # c of C = c H, at a loss of one
    found, _ = simulated(adam(rate), 1800, 900, chains=256, seed=2)
    assert found == pytest.approx(rate / 4 * BROKEN * math.sqrt(noise * CURVATURE), rel=0.05)


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_without_augmentation_the_percent_is_parameters_over_equations(noise):
    """p_broken / 3 (n - 1), whatever labels and noise, for n samples in random orientation."""
    rng, repeats, n = np.random.default_rng(3), 3000, 40
    v = rng.normal(size=(repeats, n, 3 * VECTORS))
    truth = np.concatenate([2 * np.eye(3), 0.5 * np.eye(3)], axis=1)
    y = v @ truth.T + noise * rng.normal(size=(repeats, n, 3))
    w = np.linalg.solve(v.transpose(0, 2, 1) @ v, v.transpose(0, 2, 1) @ y).transpose(0, 2, 1)
    loss = noise**2 + float(((w - truth) ** 2).sum((1, 2)).mean()) / 3
    assert error_of(w) / loss == pytest.approx(BROKEN / (3 * (n - 1)), rel=0.05)


def test_raw_vectors_give_equal_spectra_to_all_degrees_and_labels_do_not_enter_the_decay():
    """One matrix Q for l = 0, 1, 2: a broken direction falls exactly as fast as its symmetric sibling."""
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(VECTORS, VECTORS))
    q = mixing @ mixing.T  # E v_k . v_l / 3
    h = 2 / 3 * np.kron(q, np.eye(3))
    scalar = 2 / 3 * np.linalg.eigvalsh(q)
    np.testing.assert_allclose(np.linalg.eigvalsh(h), np.repeat(scalar, 3), rtol=1e-8)
    start, courses = rng.normal(size=(3, 3 * VECTORS)), []
    for factor in (0.0, 1.0, 3.0):
        w, truth = start.copy(), factor * np.concatenate([np.eye(3), -np.eye(3)], axis=1)
        seen = []
        for _ in range(50):
            broken = parts_of(w)[1]
            seen.append(float(np.einsum("ia,ab,ib->", broken, h, broken)) / 2)
            w = w - 0.01 * (w - truth) @ h
        courses.append(seen)
    np.testing.assert_allclose(courses[1], courses[0], rtol=1e-10)
    np.testing.assert_allclose(courses[2], courses[0], rtol=1e-10)
