"""The precision a model computes in is seen through functions, casts and autocast; what torch does not see is not."""

import numpy as np
import pytest
import torch
from torch import nn

from equiscope.decomposition.computing import (
    Computing,
    allowing_tf32,
    hardware_notes,
    in_precision,
    tf32_effect,
    tf32_in_use,
    watched,
)

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
X64 = X.double()
torch.manual_seed(0)
NET = nn.Linear(3, 3)


def under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return NET(X).float()


def of_gradients():
    x = X.clone().requires_grad_()
    return torch.autograd.grad(NET(x).square().sum(), x)[0]


CASES = {
    "single precision": (lambda: NET(X), torch.float32, False),
    "double precision": (lambda: X.double() @ torch.eye(3).double() * torch.tensor(2.0), torch.float64, False),
    "double with constants of single": (
        lambda: X64 @ torch.eye(3).double() * torch.tensor(2.0) + torch.zeros(3), torch.float64, False),
    "autocast": (under_autocast, torch.bfloat16, False),
    "a cast there and back": (lambda: (X.half().float() * 2), torch.float16, False),
    "gradients": (of_gradients, torch.float32, False),
    "numpy": (lambda: torch.from_numpy(np.sin(X64.numpy())), torch.float64, True),
    "numpy and a little torch": (lambda: torch.from_numpy(np.sin(X64.numpy())) / 3, torch.float64, True),
    "lists": (lambda: torch.tensor(X64.tolist()).double() * 2, torch.float64, True),
    "nothing at all": (lambda: X64.clone(), torch.float64, True),
}  # fmt: skip



@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_coarsest_precision_is_seen(case):
    call, dtype, opaque = case
    answer, computing = watched(call)
    assert torch.equal(answer, call())
    assert computing.opaque is opaque
    if not opaque or dtype is not torch.float64:
        assert computing.eps == torch.finfo(dtype).eps


def test_what_cannot_be_watched_is_answered_all_the_same():
    calls = []

    def once():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not under a mode")
        return X

    answer, computing = watched(once)
    assert answer is X
    assert computing is None
    with pytest.raises(ValueError, match="always"):
        watched(lambda: (_ for _ in ()).throw(ValueError("always")))


def test_tf32_is_named_where_the_model_does_what_it_is_allowed_for():
    gpu, before = torch.device("cuda"), (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        for products, convolutions in ((True, False), (False, True), (False, False)):
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
            for kinds in ({"products"}, {"convolutions"}, set()):
                found = Computing(1e-7, False, frozenset(kinds))
                used = (products and "products" in kinds) or (convolutions and "convolutions" in kinds)
                assert tf32_in_use(found.tf32) is used
                assert any("TF32" in n for n in hardware_notes(gpu, found)) is used
        assert not any("TF32" in n for n in hardware_notes(gpu))
        assert hardware_notes(torch.device("cpu"), Computing(1e-7, False, frozenset({"products"}))) == []
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_effect_of_tf32_is_the_answer_without_it():
    def answer():
        """Products rounded to ten bits where TF32 is allowed for them."""
        exact = X64.float() @ NET.weight.detach().T
        rounded = (exact * 3).half().float() / 3
        return {"a": rounded if torch.backends.cuda.matmul.allow_tf32 else exact}

    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        kinds, first = frozenset({"products"}), answer()
        found = tf32_effect(kinds, first, answer)
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.equal(answer()["a"], first["a"])
        exact = X64.float() @ NET.weight.detach().T
        assert found == pytest.approx(float((first["a"] - exact).norm() / exact.norm()), rel=1e-5)
        assert 2**-13 < found < 2**-10
        (note,) = (n for n in hardware_notes(torch.device("cuda"), Computing(1e-3, False, kinds, tf32_effect=found))
                   if "TF32" in n)  # fmt: skip
        assert f"changes the answer by {100 * found:.2g} % of its size" in note
        with pytest.raises(KeyError), allowing_tf32(False, kinds):
            raise KeyError
        assert torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        assert tf32_effect(kinds, first, answer) == 0
        assert tf32_effect(frozenset(), first, answer) == 0
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_copies_in_another_precision(monkeypatch):
    copied = in_precision(NET, torch.float64)
    assert copied.weight.dtype == torch.float64
    assert NET.weight.dtype == torch.float32
    function = under_autocast
    assert in_precision(function, torch.float64) is function
    monkeypatch.setattr("equiscope.decomposition.computing.COPIED_PARAMETERS", 5)
    assert in_precision(NET, torch.float64) is None
