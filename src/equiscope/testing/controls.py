"""Models that are not equivariant, by a known amount: positive controls for any measure of equivariance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LinearMap(nn.Module):
    """f(x) = A x on every vector of a batch field, for a fixed 3x3 matrix A.

    The twisted prediction is g^-1 A g x, its average (tr A / 3) x, and since E|A g x|^2 = |A|_F^2 |x|^2 / 3,

        equivariance error per component = |x|^2 / 9 (|A|_F^2 - (tr A)^2 / 3),

    which is zero only for multiples of the identity. Its Wigner degrees are 1 (skew part of A) and 2 (symmetric
    traceless part), so that tetrahedral cosets give the figure exactly.

    Args:
        matrix: A, (3, 3).
        field: batch field (…, 3) with the vectors, turned about the origin.
        output: name of the output.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0, 2.0]]], dtype=torch.float64)
        >>> control = LinearMap(torch.diag(torch.tensor([3.0, 0.0, 0.0])))
        >>> float(control.equivariance_error(x))
        6.0
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, field: str = "pos", output: str = "vectors"):
        super().__init__()
        self.field, self.output = field, output
        self.register_buffer("matrix", torch.as_tensor(matrix))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = batch[self.field]
        return {self.output: x @ self.matrix.to(x).mT}

    def twirled(self, x: Tensor) -> Tensor:
        """The rotation average of the prediction, (tr A / 3) x."""
        return x * (self.matrix.double().trace() / 3)

    def equivariance_error(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Equivariance error of each sample, a mean over its real vectors and their components, (samples,).

        x: (samples, …, 3); mask: (samples, …) boolean, all real by default.
        """
        a = self.matrix.double()
        factor = (a.square().sum() - a.trace() ** 2 / 3) / 9
        return factor * _mean(x.double().square().sum(-1), mask)


class ConstantVector(nn.Module):
    """f(x) = c whatever x is: the twirled prediction is zero and all of |c|^2 is equivariance error.

    Per component that is |c|^2 / 3.

    Args:
        vector: c, (3,).
        field: batch field (…, 3) that gives the output its shape.
        output: name of the output.
    """

    vector: Tensor

    def __init__(self, vector: Tensor, field: str = "pos", output: str = "vectors"):
        super().__init__()
        self.field, self.output = field, output
        self.register_buffer("vector", torch.as_tensor(vector))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = batch[self.field]
        return {self.output: self.vector.to(x).expand_as(x).clone()}

    def twirled(self, x: Tensor) -> Tensor:
        """The rotation average of the prediction: zero."""
        return torch.zeros_like(x)

    def equivariance_error(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """|c|^2 / 3 for every sample, (samples,)."""
        square = self.vector.double().square().sum() / 3
        return _mean(square.expand(x.shape[:-1]), mask)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (samples, …) over everything but samples, real entries only."""
    values = values.reshape(len(values), -1)
    if mask is None:
        return values.mean(dim=1)
    real = mask.reshape(len(mask), -1)
    return torch.where(real, values, 0.0).sum(dim=1) / real.sum(dim=1)
