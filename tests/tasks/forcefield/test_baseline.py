"""The pair potential: it finds a potential that is one, beats nothing it should not, and turns with its input."""

import numpy as np
import torch

from equiscope.symmetry.rotations import haar
from equiscope.tasks.forcefield.baseline import FARTHEST, FUNCTIONS, NEAREST, PairPotential


def molecules(count=300, atoms=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pos = 2 * torch.randn(count, atoms, 3, generator=generator, dtype=torch.float64)
    species = torch.tensor([1, 6, 8])[torch.randint(0, 3, (count, atoms), generator=generator)]
    mask = torch.ones(count, atoms, dtype=torch.bool)
    mask[::3, -1] = False
    return {"pos": pos, "species": torch.where(mask, species, 0), "mask": mask}


def pair_forces(batch, force):
    """Forces of a pair force, term by term."""
    out = torch.zeros_like(batch["pos"])
    for b in range(len(out)):
        real = batch["mask"][b].nonzero()[:, 0].tolist()
        for i in real:
            for j in real:
                if i != j:
                    apart = batch["pos"][b, i] - batch["pos"][b, j]
                    pair = frozenset(batch["species"][b, [i, j]].tolist())
                    out[b, i] += force(float(apart.norm()), pair) * apart / apart.norm()
    return out


def one_of_the_functions(distance, pair):
    width = (FARTHEST - NEAREST) / (FUNCTIONS - 1)
    if distance >= FARTHEST + 3 * width:
        return 0.0
    weight = {frozenset((1, 6)): 2.0, frozenset((8,)): -1.0}.get(pair, 0.5)
    return weight * np.exp(-0.5 * ((distance - (NEAREST + 3 * width)) / width) ** 2)


def test_a_pair_potential_of_its_functions_is_found_exactly():
    train, held = molecules(), molecules(30, seed=1)
    train["forces"] = pair_forces(train, one_of_the_functions)
    halves = [{k: v[:150] for k, v in train.items()}, {k: v[150:] for k, v in train.items()}]
    found = PairPotential.fit(halves, torch.tensor([1, 6, 8]))(held)["forces"]
    truth = pair_forces(held, one_of_the_functions)
    assert float((found - truth)[held["mask"]].abs().max()) < 1e-4 * float(truth.abs().max())


def test_least_squares_against_numpy():
    train = molecules()
    train["forces"] = torch.randn(train["pos"].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = PairPotential.fit([train], torch.tensor([1, 6, 8]))
    # The forces of each coefficient alone are the columns of the design.
    columns = []
    for place in range(model.coefficients.numel()):
        unit = torch.zeros(model.coefficients.numel(), dtype=torch.float64)
        unit[place] = 1.0
        one = PairPotential(unit.reshape(model.coefficients.shape), model.elements)
        columns.append(one(train)["forces"][train["mask"]].flatten().numpy())
    target = train["forces"][train["mask"]].flatten().numpy()
    best = np.linalg.lstsq(np.array(columns).T, target, rcond=None)[1]
    residual = model(train)["forces"][train["mask"]].flatten().numpy() - target
    least = best[0] if len(best) else 0.0
    np.testing.assert_allclose((residual**2).sum(), least, rtol=1e-5)


def test_it_is_equivariant_and_forces_sum_to_zero():
    train = molecules()
    train["forces"] = torch.randn(train["pos"].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model, turn = PairPotential.fit([train], torch.tensor([1, 6, 8])), haar(1, torch.Generator().manual_seed(2))[0]
    plain, turned = model(train)["forces"], model({**train, "pos": train["pos"] @ turn.T})["forces"]
    torch.testing.assert_close(turned, plain @ turn.T, rtol=1e-10, atol=1e-10)
    assert float(plain.sum(1).abs().max()) < 1e-9 * float(plain.abs().max() * plain.shape[1])
    assert float(plain[~train["mask"]].abs().sum()) == 0.0


def test_elements_that_training_never_saw_do_not_stop_it():
    train = molecules()
    train["forces"] = pair_forces(train, one_of_the_functions)
    model = PairPotential.fit([train], torch.tensor([1, 6, 8]))
    strange = {**train, "species": torch.where(train["mask"], 17, 0)}
    assert bool(torch.isfinite(model(strange)["forces"]).all())
