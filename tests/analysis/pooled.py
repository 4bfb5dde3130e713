"""Two outputs linear in their weights on samples of unequal size: every pooled figure in closed form."""

import torch
from torch import nn

import equiscope as eq

SIZES = (2, 5, 3, 9, 4, 7, 6)


class TwoMaps(nn.Module):
    """forces = A x and moments = B x on every atom, an equal part of both outputs free of rotations' reach."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))

    def forward(self, batch):
        return {"forces": batch["pos"] @ self.a.T, "moments": batch["pos"] @ self.b.T}


def molecules(sizes=SIZES, seed=1):
    """One padded batch; the atoms of a sample are the longer the more there are, so that weights show."""
    generator = torch.Generator().manual_seed(seed)
    widest = max(sizes)
    mask = torch.arange(widest)[None] < torch.tensor(sizes)[:, None]
    # Half of the atoms carry a moment, so that both outputs have masks of their own.
    some = mask & (torch.arange(widest)[None] % 2 == 0)
    x = torch.randn(len(sizes), widest, 3, generator=generator, dtype=torch.float64)
    x = x * torch.tensor(sizes, dtype=torch.float64)[:, None, None] ** 0.5
    y, m = torch.randn(2, *x.shape, generator=generator, dtype=torch.float64)
    return {"pos": x, "y": y, "m": m, "mask": mask, "some": some}


def dealt(count, seed=1):
    """The same molecules in batches of unequal size."""
    whole, sizes = molecules(seed=seed), [2, 1, 3, 1][:count]
    cuts = [slice(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(count)]
    return [{k: v[cut] for k, v in whole.items()} for cut in cuts]


def declared(weighting, forces=1.0, moments=0.0, both=True):
    outputs = {"forces": eq.Output("1o", target="y", mask="mask", weight=forces)}
    if both:
        outputs["moments"] = eq.Output("1o", target="m", mask="some", weight=moments)
    return eq.Declaration({"pos": "1o"}, outputs, fixed=() if both else ("m",), mask="mask", weighting=weighting)


def moment(batches, mask, weighting):
    """Mean of |x|^2 over a sample's masked atoms, then over samples; or over all masked atoms."""
    squares = [b["pos"].square().sum(-1) for b in batches]
    masks = [b[mask] for b in batches]
    if weighting == "component":
        return sum((s * m).sum() for s, m in zip(squares, masks, strict=True)) / sum(m.sum() for m in masks)
    return torch.cat([(s * m).sum(1) / m.sum(1) for s, m in zip(squares, masks, strict=True)]).mean()


def broken(matrix):
    """Equivariance error of A x per component and |x|^2: (|A|^2 - (tr A)^2 / 3) / 9."""
    return (matrix.square().sum() - matrix.trace() ** 2 / 3) / 9


def error(model, batches, weighting, forces, moments):
    """The pooled equivariance error of both outputs, by hand."""
    with torch.no_grad():
        return float(
            forces * moment(batches, "mask", weighting) * broken(model.a)
            + moments * moment(batches, "some", weighting) * broken(model.b)
        )
