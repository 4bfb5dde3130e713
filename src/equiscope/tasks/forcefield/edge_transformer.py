"""The default force field: a transformer over each atom's edges that is fed raw directions in every layer.

The network has no rotation symmetry built in: every layer reads the components of the unit vectors in the
laboratory frame, and forces are raw 3-vectors. Close in spirit to the Point Edge Transformer (Pozdnyakov and
Ceriotti, arXiv 2305.19302) and to MD-ET (arXiv 2503.01431).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import ORGANIC, EdgeAttention, RadialBasis, SpeciesIndex, geometry
from equiscope.tasks.guards import at_least, heads_fit, positive


@dataclass(frozen=True)
class EdgeTransformerConfig:
    """Sizes of an :class:`EdgeTransformer`; lengths in Å."""

    width: int = 40
    layers: int = 3
    heads: int = 4
    feedforward: int = 104
    radial: int = 24
    cutoff: float = 5.0
    elements: tuple[int, ...] = ORGANIC

    def __post_init__(self) -> None:
        positive(cutoff=self.cutoff)
        at_least(1, layers=self.layers)
        heads_fit(self.width, self.heads)


@dataclass(frozen=True)
class Tokens:
    """The tokens of all atoms: first the E edges, then one central token for each of the A atoms.

    Attributes:
        geometry: (E, G) radial basis and unit vector, the latter in the laboratory frame.
        unit: (E, 3) unit vectors from atom to neighbour.
        ends: (E,) species index of the neighbour; centres: (A,) species index of the atom.
        log_weight: (E + A,) log of the cutoff envelope, 0 for central tokens.
        owner: (E + A,) atom each token belongs to.
        table: (A, K + 1) tokens of each atom, the central one first; slot: (E + A,) its inverse.
        bias: (A, 1, 1, K + 1) log envelope in the table, −inf where there is no token.
        reverse: (E,) edge j → i of each edge i → j.
    """

    geometry: Tensor
    unit: Tensor
    ends: Tensor
    centres: Tensor
    log_weight: Tensor
    owner: Tensor
    table: Tensor
    slot: Tensor
    bias: Tensor
    reverse: Tensor


class TokenLayer(nn.Module):
    """One round: read the geometry again, transform each atom's tokens, exchange with the reversed edges.

    x ← x + G(geometry, species);  x ← x + Attention(norm x);  x ← x + MLP(norm x);
    x_ij ← x_ij + M[norm x_ij, norm x_ji]
    """

    def __init__(self, config: EdgeTransformerConfig, geometry: int, exchange: bool) -> None:
        super().__init__()
        width = config.width
        self.geometry = nn.Linear(geometry, width)
        self.end = nn.Embedding(len(config.elements), width)
        self.centre = nn.Embedding(len(config.elements), width)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = EdgeAttention(width, config.heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, config.feedforward), nn.GELU(), nn.Linear(config.feedforward, width))
        self.norm_exchange = nn.LayerNorm(width) if exchange else None
        self.exchange = nn.Linear(2 * width, width) if exchange else None

    def forward(self, x: Tensor | None, tokens: Tokens) -> Tensor:
        fresh = torch.cat([self.geometry(tokens.geometry) + self.end(tokens.ends), self.centre(tokens.centres)])
        x = fresh if x is None else x + fresh
        x = x + self.attention(self.norm_attention(x), tokens.table, tokens.slot, tokens.bias)
        x = x + self.mlp(self.norm_mlp(x))
        if self.exchange is None or self.norm_exchange is None:
            return x
        edges, centres = x.split([len(tokens.reverse), len(tokens.centres)])
        both = self.norm_exchange(edges)
        both = torch.cat([both, both.index_select(0, tokens.reverse)], dim=1)
        return torch.cat([edges + self.exchange(both), centres])


class EdgeTransformer(nn.Module):
    """Energy and forces of molecules, with no rotation symmetry built in.

    Token outputs (ε, v, s)_t = O norm(x_t) ∈ R × R³ × R are summed over the tokens of an atom with the cutoff
    envelope w (1 for the central token): e_i = Σ_t w_t ε_t and F_i = Σ_t w_t v_t + Σ_j w_ij s_ij d_ij, with d_ij the
    unit vector of edge i → j. The raw vectors v tie the output to the laboratory frame; the coefficients s are as
    little symmetric as the features they are read from, but spare the network the work of copying directions
    (without them it needs three times the steps for the same force error). The energy of a sample is
    Σ_i e_i. Called with a batch (pos (B, N, 3) in Å, species, mask (B, N)); returns ``energy`` (B,) in eV and
    ``forces`` (B, N, 3) in eV/Å, zero in the padding.
    """

    def __init__(self, config: EdgeTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.species = SpeciesIndex(config.elements)
        self.radial = RadialBasis(config.radial, config.cutoff)
        geometry = config.radial + 3
        self.layers = nn.ModuleList(
            TokenLayer(config, geometry, exchange=index + 1 < config.layers) for index in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 5)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        atoms = neighbours.flatten(batch)
        tokens = self.tokens(atoms)
        x = None
        for layer in self.layers:
            x = layer(x, tokens)
        out = self.head(self.norm(x)) * tokens.log_weight.exp()[:, None]
        energy, raw, along = out.split([1, 3, 1], dim=1)
        count, edges = len(atoms.sample), len(tokens.unit)
        forces = raw.new_zeros(count, 3).index_add(0, tokens.owner, raw)
        forces = forces.index_add(0, tokens.owner[:edges], along[:edges] * tokens.unit)
        energy = atoms.sum_samples(energy.new_zeros(count, 1).index_add(0, tokens.owner, energy))
        return {"energy": energy[:, 0], "forces": atoms.pad(forces)}

    def tokens(self, atoms: neighbours.FlatAtoms) -> Tokens:
        """Edges and central tokens of the atoms of a batch."""
        index = self.species(atoms.species, known=atoms.found is not None)
        found = neighbours.find(atoms, self.config.cutoff)
        assert found.reverse is not None
        edges, count = len(found.centre), len(index)
        length, unit, log_envelope = geometry(atoms, found, self.config.cutoff)
        own = torch.arange(count, device=index.device)
        places = found.table.shape[1] + 1
        table = torch.cat([own[:, None] + edges, found.table], dim=1)
        valid = torch.cat([found.valid.new_ones(count, 1), found.valid], dim=1)
        log_weight = torch.cat([log_envelope, length.new_zeros(count)])
        bias = log_weight[table].masked_fill(~valid, -torch.inf)
        return Tokens(
            geometry=torch.cat([self.radial(length), unit], dim=1),
            unit=unit,
            ends=index[found.neighbour],
            centres=index,
            log_weight=log_weight,
            owner=torch.cat([found.centre, own]),
            table=table,
            slot=torch.cat([found.slot + found.centre + 1, own * places]),
            bias=bias[:, None, None, :],
            reverse=found.reverse,
        )
