"""
PyTorch Geometric graphs
========================

Batches as they come from its DataLoader; each graph turns by a rotation of its own.
"""

import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

import equiscope as eq
import equiscope.adapters.pyg

torch.manual_seed(0)


class MessagePassing(torch.nn.Module):
    """Messages are a network of the raw edge vector: no symmetry is built in."""

    def __init__(self):
        super().__init__()
        self.message = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.SiLU(), torch.nn.Linear(32, 3))

    def forward(self, data):
        source, target = data.edge_index
        messages = self.message(data.pos[source] - data.pos[target] + data.edge_shift)
        return {"forces": torch.zeros_like(data.pos).index_add(0, target, messages)}


def graph(size):
    edges = (~torch.eye(size, dtype=torch.bool)).nonzero().T
    pos = torch.randn(size, 3)
    shift = torch.zeros(edges.shape[1], 3)  # of periodic images; here there are none
    vectors = pos[edges[0]] - pos[edges[1]]
    forces = torch.zeros_like(pos).index_add(0, edges[1], vectors * torch.exp(-vectors.square().sum(-1, keepdim=True)))
    return Data(pos=pos, edge_index=edges, edge_shift=shift, forces=forces)


# %%
# A short training.
model, loader = MessagePassing(), DataLoader([graph(int(n)) for n in torch.randint(3, 9, (64,))], batch_size=16)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(40):
    for batch in loader:
        loss = (model(batch)["forces"] - batch.forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# What belongs to nodes, edges and graphs is read from the batch.
result = eq.measure(
    model,
    loader,
    inputs={"pos": eq.Input("1o", points=True), "edge_shift": eq.Input("1o", points=False)},
    outputs={"forces": eq.Output("1o", target="forces")},
)
print(result)
result.plot()
