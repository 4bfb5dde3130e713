"""What runs on the pretended card: ``python -m tests.gpu.on_pretended`` prints a line of JSON a check."""

import copy
import json
import sys

import torch

import equiscope as eq
from equiscope.analysis.parts import Parts
from equiscope.runs.module import arrange, build_optimizer, update_average
from equiscope.tasks.forcefield import models, neighbours
from equiscope.tasks.forcefield.task import ForceFieldLoss
from equiscope.tasks.voxels import data, voxelise
from equiscope.tasks.voxels import models as denoisers
from tests.gpu import pretended
from tests.gpu.test_measure import FIELDS, MASKED, Attention, batches
from tests.gpu.test_training import molecules
from tests.tasks.proteinflow.common import small_task

DOUBLE = torch.float64
ONE = {"inputs": MASKED["inputs"], "mask": "mask", "center": "mean"}
SETTINGS = {
    "default": {},
    "one by one": {"fold": 1},
    "part": {"cosets": 1.5},
    "l1": {"loss": "l1"},
    "huber": {"loss": "huber"},
    "spectrum": {"spectrum": 2},
    "mirrors too": {"group": "O3"},
    "permutation": {"symmetry": "permutation"},
    "translation": {"symmetry": "translation"},
    "nested": {"symmetry": ("rotation", "parity")},
}


def figures(result):
    return {name: getattr(result, name) for name in FIELDS} | {"calls": result.model_calls, "passes": result.passes}


def measured(device, **more):
    return figures(eq.measure(Attention().to(device, DOUBLE), batches(device, 3, dtype=DOUBLE), **MASKED, **more))


def ragged(device):
    """Atoms one after another, and an energy a sample."""
    sample = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2]).to(device)
    pos, forces = (torch.randn(9, 3, generator=torch.Generator().manual_seed(i), dtype=DOUBLE) for i in (0, 1))
    batch = {"pos": pos.to(device), "forces": forces.to(device), "batch": sample}

    def model(batch):
        total = torch.zeros(3, 3, dtype=DOUBLE, device=device).index_add(0, batch["batch"], batch["pos"].sin())
        return {"forces": batch["pos"].sin() - total[batch["batch"]]}

    outputs = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces", "batch": "batch"}
    return figures(eq.measure(model, [batch], **outputs))


def grids(device):
    """Images of a volume under the 24 turns of its grid."""
    torch.manual_seed(0)
    net = torch.nn.Conv3d(1, 1, 3, padding=1).to(device, DOUBLE)
    grid = eq.GridAction(5)
    batch = {"x": torch.randn(2, 1, 5, 5, 5, dtype=DOUBLE).to(device)}
    found = eq.measure(
        lambda b: {"y": net(b["x"])}, [batch], inputs={"x": eq.Input(grid)}, outputs={"y": eq.Output(grid)}, group="O",
        rotations="O",
    )  # fmt: skip
    return {"relative": found.relative_equivariance}


def metric(device):
    found = eq.EquivarianceError(**MASKED).to(device)
    model = Attention().to(device, DOUBLE)
    for batch in batches(device, dtype=DOUBLE):
        found.update(model, batch)
    return {"percent": float(found.compute())}


def compared(device):
    models = [Attention().to(device, DOUBLE), Attention(16).to(device, DOUBLE)]
    return {"percent": eq.compare(*models, batches(device, dtype=DOUBLE), **MASKED).difference}


def twirled(device):
    model = eq.Twirled(Attention().to(device, DOUBLE), outputs={"forces": "1o"}, fixed=["forces"], **ONE)
    return {"percent": float(model(batches(device, dtype=DOUBLE)[0])["forces"].square().sum())}


def parts(device):
    declaration = eq.Declaration(outputs={"forces": eq.Output("1o", target="forces")}, **ONE)
    own = Parts(Attention().to(device, DOUBLE), batches(device, dtype=DOUBLE), declaration)
    direction = torch.linspace(-1, 1, own.size, dtype=DOUBLE).to(device)
    gradient, product = own.gradient()["equivariance"], own.product("equivariance", direction)
    return {**own.values, "gradient": float(gradient.norm()), "product": float(direction @ product)}


class Toyed:
    """A force field on made-up molecules, as a task trains it."""

    host_fields = ()

    def __init__(self, name):
        self.name, self.loss = name, ForceFieldLoss("squared", forces=1.0, energy=1.0)

    def build_model(self):
        torch.manual_seed(0)
        return models.build(self.name, "nano", layers=1)

    def training_batch(self, step):
        return neighbours.prepared(molecules(4, 9, step), 5.0)

    def training_loss(self, model, batch):
        return self.loss(model(batch), batch)


class Voxelised:
    """The voxels' task on made-up molecules; its noise comes with the batch, since a card has its own generator."""

    grid = voxelise.Grid(8, 0.6, 0.6, (6, 7, 8))

    def build_model(self):
        torch.manual_seed(0)
        tiny = {"width": 4, "multipliers": [1, 2], "attention": [False, True], "heads": 1}
        return denoisers.build("unet", channels=3, **tiny)

    def training_batch(self, step):
        made = molecules(2, 4, step)
        noise = data.noise_grids(torch.arange(2), self.grid, 0.5)
        return {"pos": made["pos"].clamp(-0.5, 0.5), "species": made["species"], "mask": made["mask"], "noise": noise}

    def training_loss(self, model, batch):
        clean = voxelise.voxelise(batch["pos"], batch["species"], batch["mask"], self.grid, checked=True)
        return {"loss": (model({"noisy": clean + batch["noise"]})["clean"] - clean).square().mean()}


def trained(task):
    """Loss, gradient and the host's waits of the second step of a training, as ``equiscope train`` makes it."""

    def check(device):
        model = task.build_model().to(device)
        mean, batch = copy.deepcopy(model), arrange(task, False, task.training_batch(0))
        optimizer = build_optimizer(model.parameters(), {"name": "adamw", "lr": 1e-3})
        batch = {k: v if k in getattr(task, "host_fields", ()) else v.to(device) for k, v in batch.items()}
        found = {}
        for step in (1, 2):
            begun = waited_so_far(device)
            loss = task.training_loss(model, batch)["loss"]
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            update_average(mean, model, step, 0.9)
            optimizer.zero_grad()
            found = {"waits": waited_so_far(device) - begun, "loss": loss, "norm": norm}
        return {"loss": float(found["loss"].detach()), "norm": float(found["norm"]), "waits": found["waits"]}

    return check


def waited_so_far(device):
    return 0 if device == "cpu" else sum(pretended.Pretended.now.waits.values())


def waits(card, cosets):
    """How often the host waits in a measurement of so many cosets, apart from what it begins and ends with."""
    before = sum(card.waits.values())
    measured(pretended.NAME, cosets=cosets, fold=1)
    return sum(card.waits.values()) - before


def main():
    pretended.install()
    checks = {name: lambda device, more=more: measured(device, **more) for name, more in SETTINGS.items()}
    tasks = {name: Toyed(name) for name in ("edge_transformer", "escaip")}
    tasks |= {"proteina": small_task(), "unet": Voxelised()}
    checks |= {f"trained {name}": trained(task) for name, task in tasks.items()}
    checks |= {"ragged": ragged, "grids": grids, "metric": metric}
    checks |= {"compare": compared, "twirled": twirled, "parts": parts}
    here = {name: check("cpu") for name, check in checks.items()}
    with pretended.a_card() as card:
        for name, check in checks.items():
            print(json.dumps([name, here[name], check(f"{pretended.NAME}:0")]), flush=True)
        few, many = waits(card, 2), waits(card, 6)
        print(json.dumps(["waits", {"count": few}, {"count": many}]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
