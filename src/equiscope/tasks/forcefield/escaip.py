"""EScAIP: an invariant attention backbone whose only broken symmetry is a three-row force head.

Written after the description of EScAIP (Qu and Krishnapriyan, arXiv 2410.24169), first version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import ORGANIC, EdgeAttention, RadialBasis, SpeciesIndex, geometry
from equiscope.tasks.guards import at_least, heads_fit, one_of, positive, share


@dataclass(frozen=True)
class EscaipConfig:
    """Sizes of an :class:`Escaip`; lengths in Å.

    Attributes:
        degree: highest Legendre degree of the angles between edges.
        nearest: keep at most this many neighbours; ``None`` keeps all and the energy surface continuous.
        norm: ``"layer"`` or ``"rms"``.
        angle: what attention knows of the angle between two edges: ``"legendre"``, a coefficient for each degree and
            head, zero at the start; or ``"cosine"``, one for each head times d̂·d̂, one at the start.
        aggregation: of neighbours: ``"envelope"``, a sum whose terms vanish at the cutoff, where attention and the
            force head's features do too; or ``"mean"``, over those within the cutoff, all alike.
        dropout: in the feed-forward parts and of the messages, and attention_dropout: of attention, while training.
        tied: one row in the force head instead of three, which makes the model exactly equivariant.
    """

    width: int = 32
    layers: int = 2
    heads: int = 4
    radial: int = 24
    degree: int = 4
    cutoff: float = 5.0
    nearest: int | None = None
    norm: str = "layer"
    angle: str = "legendre"
    aggregation: str = "envelope"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    tied: bool = False
    elements: tuple[int, ...] = ORGANIC

    def __post_init__(self) -> None:
        positive(cutoff=self.cutoff)
        heads_fit(self.width, self.heads)
        at_least(1, layers=self.layers, degree=self.degree)
        one_of(("layer", "rms"), norm=self.norm)
        one_of(("legendre", "cosine"), angle=self.angle)
        one_of(("envelope", "mean"), aggregation=self.aggregation)
        share(dropout=self.dropout, attention_dropout=self.attention_dropout)

    def normalise(self) -> nn.Module:
        """A norm of the model's width."""
        return nn.LayerNorm(self.width) if self.norm == "layer" else nn.RMSNorm(self.width)


@dataclass(frozen=True)
class Edges:
    """Invariants of the edges of a batch, and where they stand in the neighbour table.

    Attributes:
        found: the neighbour list. unit: (E, 3).
        weight: (E, 1) cutoff envelope, or 1. share: (E, 1) of a sum over the neighbours of an atom: that, or 1 / K.
        legendre: (A, K, K, L + 1) Legendre polynomials of the cosines between the edges of each atom.
        bias: (A, 1, 1, K) log of the weight, hugely negative where there is no neighbour.
    """

    found: neighbours.Neighbours
    unit: Tensor
    weight: Tensor
    share: Tensor
    legendre: Tensor
    bias: Tensor


def legendre(cosine: Tensor, degree: int) -> Tensor:
    """P_0 … P_degree of ``cosine`` on a new last axis, by (l + 1) P_{l+1} = (2l + 1) x P_l − l P_{l−1}."""
    values = [torch.ones_like(cosine), cosine]
    for l in range(1, degree):  # noqa: E741
        values.append(((2 * l + 1) * cosine * values[l] - l * values[l - 1]) / (l + 1))
    return torch.stack(values, dim=-1)


def feedforward(width: int, out: int | None = None, dropout: float = 0.0) -> nn.Sequential:
    parts = [nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, out or width)]
    if dropout:
        parts.insert(2, nn.Dropout(dropout))
        parts += [] if out else [nn.Dropout(dropout)]
    return nn.Sequential(*parts)


class AngleAttention(EdgeAttention):
    """Attention among the edges of each atom with logits q·k / √d + Σ_l c_l P_l(cos) + log weight.

    The angle between two edges enters as a bias, one learned coefficient per head and Legendre degree, or for the first
    degree alone, the cosine itself, so that the result is invariant.
    """

    def __init__(self, config: EscaipConfig) -> None:
        super().__init__(config.width, config.heads, config.attention_dropout)
        self.cosine = config.angle == "cosine"
        start = torch.ones(1, config.heads) if self.cosine else torch.zeros(config.degree + 1, config.heads)
        self.angle = nn.Parameter(start)

    def forward(self, x: Tensor, table: Tensor, slot: Tensor, *biases: Tensor) -> Tensor:
        """As :class:`EdgeAttention`, with Legendre polynomials (A, K, K, L + 1) for the first bias."""
        legendre, *others = biases
        legendre = legendre[..., 1:2] if self.cosine else legendre
        return super().forward(x, table, slot, (legendre @ self.angle).permute(0, 3, 1, 2), *others)


class EdgeNodeLayer(nn.Module):
    """One round: edges read their atoms, attend to each other, and are summed into their centres.

    h_ij ← h_ij + Attention(A norm h_ij + B norm n_i + C norm n_j);  h ← h + FFN(norm h);
    n_i ← n_i + D Σ_j s_ij norm h_ij;  n ← n + FFN(norm n)
    """

    def __init__(self, config: EscaipConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_edge, self.norm_node = config.normalise(), config.normalise()
        self.from_edge = nn.Linear(width, width)
        self.from_nodes = nn.Linear(width, 2 * width, bias=False)
        self.attention = AngleAttention(config)
        self.norm_edge_ffn, self.norm_node_ffn = config.normalise(), config.normalise()
        self.edge_ffn, self.node_ffn = (feedforward(width, dropout=config.dropout) for _ in range(2))
        self.norm_sum = config.normalise()
        self.dropout = nn.Dropout(config.dropout)
        self.to_node = nn.Linear(width, width)

    def forward(self, edge: Tensor, node: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        centre, neighbour = self.from_nodes(self.norm_node(node)).chunk(2, dim=1)
        message = self.from_edge(self.norm_edge(edge))
        message = message + centre.index_select(0, edges.found.centre)
        message = self.dropout(message + neighbour.index_select(0, edges.found.neighbour))
        edge = edge + self.attention(message, edges.found.table, edges.found.slot, edges.legendre, edges.bias)
        edge = edge + self.edge_ffn(self.norm_edge_ffn(edge))
        node = node + self.to_node(sum_edges(self.norm_sum(edge), edges, len(node)))
        return edge, node + self.node_ffn(self.norm_node_ffn(node))


def sum_edges(values: Tensor, edges: Edges, count: int) -> Tensor:
    """(E, H) → (A, H): Σ_j s_ij values_ij, s the share of each edge."""
    return values.new_zeros(count, values.shape[1]).index_add(0, edges.found.centre, values * edges.share)


class ForceHead(nn.Module):
    """Bias-free linear head a = W h with three rows, Xavier-uniform; ``tied`` repeats one row three times."""

    def __init__(self, width: int, tied: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1 if tied else 3, width))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weight.expand(3, -1).mT


class Escaip(nn.Module):
    """Energy and forces from invariant features and one symmetry-breaking force head.

    F_i = m_i Σ_j (W h_ij) ⊙ d_ij with invariant magnitude m_i and edge features h_ij (envelope included), unit vectors
    d_ij and W ∈ R^{3×H}; with tied rows the model is exactly equivariant. E = Σ_i FFN(n_i). Called with a batch
    (pos (B, N, 3) in Å, species, mask (B, N)); returns ``energy`` (B,) in eV and ``forces`` (B, N, 3) in eV/Å, zero in
    the padding.

    The invariants are the distances, the species of both ends, the cosines between the edges of an atom and the
    per-degree norms of their mean spherical harmonics, by the addition theorem
    |Σ_j w_j Y_l(d_j)|² ∝ Σ_jk w_j w_k P_l(d_j·d_k), here divided by (1 + Σ_j w_j)², or for means by (Σ_j w_j)².
    """

    def __init__(self, config: EscaipConfig) -> None:
        super().__init__()
        self.config = config
        width, kinds = config.width, len(config.elements)
        self.species = SpeciesIndex(config.elements)
        self.radial = RadialBasis(config.radial, config.cutoff)
        self.edge_in = nn.Linear(config.radial, width)
        self.node_in = nn.Linear(config.degree + 1, width)
        self.centre, self.neighbour = nn.Embedding(kinds, width), nn.Embedding(kinds, width)
        self.node_species = nn.Embedding(kinds, width)
        self.layers = nn.ModuleList(EdgeNodeLayer(config) for _ in range(config.layers))
        self.norm_edge, self.norm_node = config.normalise(), config.normalise()
        self.edge_out = nn.Linear(config.layers * width, width)
        self.node_out = nn.Linear(config.layers * width, width)
        self.direction_ffn = feedforward(width, dropout=config.dropout)
        self.magnitude = feedforward(width, 1, config.dropout)
        self.energy = feedforward(width, 1, config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Magnitudes start at one: from zero, magnitude and direction would keep each other's gradient small.
        nn.init.ones_(cast(nn.Linear, self.magnitude[-1]).bias)
        self.force_head = ForceHead(width, config.tied)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        atoms, edges, magnitude, features, energy = self._read_out(batch)
        forces = self.force_head(features) * edges.unit
        forces = magnitude[:, None] * forces.new_zeros(len(magnitude), 3).index_add(0, edges.found.centre, forces)
        return {"energy": atoms.sum_samples(energy), "forces": atoms.pad(forces)}

    def head_weight(self) -> Tensor:
        """W (3, H) of the force head."""
        return self.force_head.weight.expand(3, -1)

    def head_features(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """V_i = m_i Σ_j h_ij d_ijᵀ (A, H, 3), with forces F_ic = Σ_k W_ck V_ikc; the sample of each atom."""
        atoms, edges, magnitude, features, _ = self._read_out(batch)
        pairs = features[:, :, None] * edges.unit[:, None, :]
        summed = pairs.new_zeros(len(magnitude), *pairs.shape[1:]).index_add(0, edges.found.centre, pairs)
        return magnitude[:, None, None] * summed, atoms.sample

    def _read_out(self, batch: Mapping[str, Tensor]) -> tuple[neighbours.FlatAtoms, Edges, Tensor, Tensor, Tensor]:
        """Atoms, edges, magnitudes m (A,), edge features h (E, H) with envelope, and atomic energies (A,)."""
        atoms = neighbours.flatten(batch)
        index = self.species(atoms.species, known=atoms.found is not None)
        edges, length = self._edges(atoms)
        edge = self.edge_in(self.radial(length))
        edge = edge + self.centre(index)[edges.found.centre] + self.neighbour(index)[edges.found.neighbour]
        node = self.node_species(index) + self.node_in(order_parameters(edges, self.config.aggregation == "mean"))
        edge_layers, node_layers = [], []
        for layer in self.layers:
            edge, node = layer(edge, node, edges)
            edge_layers.append(self.norm_edge(edge))
            node_layers.append(self.norm_node(node))
        features = self.edge_out(torch.cat(edge_layers, dim=1))
        features = (features + self.direction_ffn(features)) * edges.weight
        node = self.node_out(torch.cat(node_layers, dim=1))
        return atoms, edges, self.magnitude(node)[:, 0], features, self.energy(node)[:, 0]

    def _edges(self, atoms: neighbours.FlatAtoms) -> tuple[Edges, Tensor]:
        """The edges of a batch and their (E,) lengths."""
        found = neighbours.find(atoms, self.config.cutoff, self.config.nearest)
        length, unit, log_weight = geometry(atoms, found, self.config.cutoff)
        directions = unit[found.table]
        alike = self.config.aggregation == "mean"
        if alike:
            log_weight = torch.zeros_like(log_weight)
        weight = log_weight.exp()[:, None]
        count = found.valid.sum(1).index_select(0, found.centre)[:, None]
        # Finite, not −inf: an atom without neighbours would have nothing to normalise by.
        bias = log_weight[found.table].masked_fill(~found.valid, -1e9)
        edges = Edges(
            found=found,
            unit=unit,
            weight=weight,
            share=weight / count if alike else weight,
            legendre=legendre(directions @ directions.mT, self.config.degree),
            bias=bias[:, None, None, :],
        )
        return edges, length


def order_parameters(edges: Edges, mean: bool = False) -> Tensor:
    """(A, L + 1) norms of the mean spherical harmonics of each atom's neighbours; ``mean``: shares add up to 1."""
    valid = edges.found.valid
    weight = torch.where(valid, edges.share[:, 0][edges.found.table], 0.0)
    squared = torch.einsum("aj,ak,ajkl->al", weight, weight, edges.legendre)
    # The small constant keeps the square root differentiable where a mean vanishes by symmetry.
    norms = (squared.clamp_min(0) + 1e-6).sqrt()
    return norms if mean else norms / (1 + weight.sum(1, keepdim=True))
