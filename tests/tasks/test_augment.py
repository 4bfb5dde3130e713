"""Seeds and random rotations of training samples."""

import torch

from equiscope.tasks.augment import key, rotate


def test_augmentation_is_haar_and_its_share_is_kept():
    batch = {"pos": torch.eye(3).expand(4000, 3, 3), "forces": torch.zeros(4000, 3, 3)}
    rotations = rotate(batch, ("pos", "forces"), 1.0, 5)["pos"].mT.double()
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert float(rotations.mean(0).abs().max()) < 4 * (1 / 3 / 4000) ** 0.5
    part = rotate(batch, ("pos", "forces"), 0.25, 5)["pos"]
    share = float((part != torch.eye(3)).any(dim=(1, 2)).double().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert rotate(batch, ("pos", "forces"), 0.0, 5) == batch


def test_every_purpose_and_step_has_a_seed_of_its_own():
    seeds = {key(s, what, step) for s in range(3) for what in ("noise", "order") for step in range(50)}
    assert len(seeds) == 300
    assert key(1, "noise", 2) == key(1, "noise", 2)
    assert all(0 <= seed < 2**63 for seed in seeds)
