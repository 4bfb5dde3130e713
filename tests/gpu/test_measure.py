"""The measure on a device: the CPU's figures, folding, precisions, and nothing waited for between passes.

On the processor in the suite where that means something; ``make gpu`` runs the same on a card.
"""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition import fold
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.plan import make_plan
from equiscope.symmetry.declaration import declare

NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no card here")
CARD = pytest.param("cuda", marks=[pytest.mark.gpu, NO_CARD])
DEVICES = ["cpu", CARD]
MASKED = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces", "mask": "mask", "center": "mean"}
FIELDS = ("percent", "total", "twirled", "equivariance", "loss_as_given", "r2")


class Attention(nn.Module):
    """Atoms of a sample attend to each other; not equivariant."""

    def __init__(self, width=32):
        super().__init__()
        torch.manual_seed(0)
        self.into, self.out = nn.Linear(3, width), nn.Linear(width, 3)
        self.inner = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, batch):
        hidden = torch.tanh(self.into(batch["pos"]))
        mixed, _ = self.inner(hidden, hidden, hidden, key_padding_mask=~batch["mask"], need_weights=False)
        return self.out(hidden + mixed)


def batches(device, count=2, samples=6, atoms=7, dtype=torch.float32):
    made = []
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        pos, forces = torch.randn(2, samples, atoms, 3, generator=generator, dtype=dtype)
        mask = torch.arange(atoms) < 3 + torch.arange(samples)[:, None] % (atoms - 2)
        made.append({"pos": pos.to(device), "forces": forces.to(device), "mask": mask.to(device)})
    return made


def measured(device, model=None, dtype=torch.float32, **more):
    model = Attention() if model is None else model
    model = model.to(device, dtype) if isinstance(model, nn.Module) else model
    return eq.measure(model, batches(device, dtype=dtype), **MASKED, **more)


def same(a, b, rel):
    for name in FIELDS:
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=rel), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 5, "auto"])
def test_figures_are_those_of_single_passes_on_the_cpu(device, size):
    same(measured(device, dtype=torch.float64, fold=size), measured("cpu", dtype=torch.float64, fold=1), 1e-11)


@pytest.mark.gpu
@NO_CARD
def test_a_card_folds_by_itself_and_uses_one_card_alike():
    model = Attention()
    found = measured("cuda", model)
    assert found.model_calls < measured("cuda", model, fold=1).model_calls / 3
    assert not any("a call" in note for note in found.notes)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, second = measured("cuda", model), measured("cuda", model)
    finally:
        torch.use_deterministic_algorithms(before)
    assert first.percent == second.percent
    same(first, measured("cpu"), 1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_a_function_and_a_metric_are_told_of_the_hardware_as_a_module_is(device):
    net, metric = Attention().to(device), eq.EquivarianceError(**MASKED)
    for batch in batches(device):
        metric.update(net, batch)
    for found in (measured(device, net), measured(device, lambda batch: net(batch)), metric.result()):
        assert any("GPU kernels" in note for note in found.notes) is (device == "cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 6])
def test_autocast_is_measured_and_said(device, size):
    net = Attention().to(device)

    def model(batch):
        with torch.autocast(device, dtype=torch.bfloat16):
            return net(batch).float()

    found = measured(device, model, fold=size)
    assert any("computes in bfloat16 inside" in note for note in found.notes)
    assert not any("a call" in note for note in found.notes)
    assert found.percent == pytest.approx(measured(device, net, fold=1).percent, rel=0.05)
    assert found.noise_floor > 1e3 * measured(device, net, fold=1).noise_floor


@pytest.mark.parametrize("device", DEVICES)
def test_noise_of_the_precision_is_no_randomness_and_more_is(device):
    generator = torch.Generator(device).manual_seed(3)
    net = Attention().to(device)

    def noisy(size):
        def model(batch):
            with torch.autocast(device, dtype=torch.bfloat16):
                answer = net(batch).float()
            noise = torch.randn(answer.shape, generator=generator, device=device)
            return answer + size * answer.std() * noise

        return model

    found = measured(device, noisy(0.004), fold=1)
    assert any("identical calls differ by" in note and "allows" in note for note in found.notes)
    with pytest.raises(eq.errors.RandomModelError, match="the model is random"):
        measured(device, noisy(0.1), fold=1)


@pytest.mark.gpu
@NO_CARD
def test_tf32_is_said_with_its_effect_and_only_where_it_is_on():
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (True, False):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            notes = [n for n in measured("cuda").notes if "TF32" in n]
            assert len(notes) == allowed
            assert all("products: it changes the answer by" in n for n in notes)
            # Elementwise models do nothing in TF32.
            assert not any("TF32" in n for n in measured("cuda", lambda b: torch.tanh(b["pos"])).notes)
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.gpu
@NO_CARD
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_models_and_cuda_graphs_give_the_same_figures(mode):
    plain = Attention().to("cuda").eval()
    compiled = torch.compile(plain, mode=mode)
    for size in (1, "auto"):
        same(measured("cuda", compiled, fold=size), measured("cuda", plain, fold=1), 1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_a_call_that_has_no_memory_is_halved(device):
    net, tried = Attention().to(device, torch.float64), []

    def model(batch):
        samples = len(batch["pos"])
        tried.append(samples)
        if samples > 30:
            # More than any machine has.
            torch.empty(1 << 60, dtype=torch.uint8, device=device)
        return net(batch)

    found = measured(device, model, dtype=torch.float64, fold=12)
    assert [n for n in tried if n > 30] == [72, 36]
    same(found, measured("cpu", dtype=torch.float64, fold=1), 1e-11)


@pytest.mark.gpu
@NO_CARD
def test_a_call_stays_under_the_bound_of_memory(monkeypatch):
    class Wide(Attention):
        """About 20 MB a sample."""

        def forward(self, batch):
            wide = batch["pos"].flatten(1).sum(1)[:, None].expand(-1, 5_000_000).contiguous()
            return super().forward(batch) + 0 * wide.mean(1)[:, None, None]

    monkeypatch.setattr(fold, "SHARE", 2.5e9 / fold.free_memory(torch.device("cuda")))
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    measured("cuda", Wide())
    assert torch.cuda.max_memory_allocated() - base < 3e9


@pytest.mark.gpu
@NO_CARD
@pytest.mark.parametrize("size", [1, 6])
def test_no_pass_waits_for_the_card(size):
    plan = make_plan(declare(**MASKED), fold=size)
    found = Collector(Attention().to("cuda").eval(), plan, 8)
    for batch in batches("cuda"):
        orbit = found.begin(batch)
        torch.cuda.set_sync_debug_mode("error")
        try:
            orbit.add_cosets(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NO_CARD
def test_two_processes_on_one_card():
    import subprocess
    import sys

    code = "from tests.gpu.test_measure import measured; print(measured('cuda').percent)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    figures = [float(process.communicate(timeout=200)[0]) for process in both]
    assert figures == pytest.approx([measured("cuda").percent] * 2, rel=1e-5)
