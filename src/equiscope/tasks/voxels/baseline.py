"""The voxels' baseline: the Wiener filter, the best isotropic linear denoiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class WienerFilter(nn.Module):
    """Denoises grids in Fourier space, all channels together, by the length of the wave vector alone.

        ŷ(k) = S(|k|) (S(|k|) + σ² 1)⁻¹ x(k),        S = mean over grids and shell of V(k) V(k)^*

    It commutes with the 24 rotations of the grid exactly; S is real and symmetric, as inversion maps a shell to itself.

    Args:
        spectrum: (shells, C, C) float64, S of each shell, per voxel; sigma: of the noise.
    """

    gain: Tensor

    def __init__(self, spectrum: Tensor, sigma: float) -> None:
        super().__init__()
        noise = sigma**2 * torch.eye(spectrum.shape[-1], dtype=torch.float64, device=spectrum.device)
        self.register_buffer("gain", torch.linalg.solve(spectrum + noise, spectrum).mT.contiguous())

    @classmethod
    def fit(cls, grids: Iterable[Tensor], sigma: float) -> WienerFilter:
        """The filter of clean grids, in batches (B, C, n, n, n)."""
        total, samples = torch.zeros(0), 0
        for batch in grids:
            found, shells = _transformed(batch)
            if not samples:
                total = torch.zeros(int(shells.max()) + 1, found.shape[1], found.shape[1], dtype=torch.float64)
            total.index_add_(0, shells, torch.einsum("bci,bdi->icd", found, found.conj()).real)
            samples += len(batch)
        spectrum = total / (samples * torch.bincount(shells)[:, None, None])
        return cls((spectrum + spectrum.mT) / 2, sigma)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``clean`` (B, C, n, n, n) of ``noisy``, in its dtype."""
        noisy = batch["noisy"]
        found, shells = _transformed(noisy)
        gain = self.gain.to(noisy.device)[shells].to(found.dtype)
        answer = torch.einsum("icd,bdi->bci", gain, found).reshape(noisy.shape)
        return {"clean": torch.fft.ifftn(answer, dim=(2, 3, 4), norm="ortho").real.to(noisy.dtype)}


def _transformed(grids: Tensor) -> tuple[Tensor, Tensor]:
    """Fourier coefficients (B, C, n³) complex128 of unit noise per voxel, and the shell of each wave vector (n³,)."""
    found = torch.fft.fftn(grids.double(), dim=(2, 3, 4), norm="ortho").flatten(2)
    wave = torch.fft.fftfreq(grids.shape[-1], dtype=torch.float64, device=grids.device) * grids.shape[-1]
    squares = wave[:, None, None] ** 2 + wave[None, :, None] ** 2 + wave[None, None, :] ** 2
    return found, squares.sqrt().round().long().flatten()
