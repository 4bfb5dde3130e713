import pytest
import torch

from equiscope.analysis.autograd import Graphs, pulled, saved_bytes
from equiscope.errors import InputError


def test_bytes_held_by_a_graph():
    w = torch.ones(100, dtype=torch.float64, requires_grad=True)
    with saved_bytes([w]) as saved:
        once = (w * w).exp()
        assert sum(saved.values()) == 800
        (torch.autograd.grad(once.sum(), w, create_graph=True)[0] * once).sum()
    assert sum(saved.values()) > 1600
    with saved_bytes([]) as saved:
        kept = w * w
    assert sum(saved.values()) == 800
    assert kept.requires_grad


def test_products_of_a_loss_with_a_known_hessian():
    """f(p) = |p|^4: the Gauss-Newton matrix is the Hessian, for p is linear in W."""
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    x, v = torch.randn(2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)

    def run():
        return [{"y": w @ x}]

    def loss(rows):
        return rows[0]["y"].square().sum() ** 2

    for memory in ("batch", "all"):
        graphs = Graphs([w], memory)
        for kind in ("hessian", "gauss_newton"):
            for trained in (False, False, True):
                if trained:
                    with torch.no_grad():
                        w.mul_(0.5)
                    assert not graphs.holds("f", kind)
                y, moved = (w @ x).detach(), v @ x
                expected = torch.outer(4 * (y @ y) * moved + 8 * y * (y @ moved), x)
                (found,) = graphs.product("f", kind, [v], run, loss)
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
                assert graphs.holds("f", kind) == (memory == "all")
        graphs.release()
        assert not graphs.holds("f", "hessian")


def test_what_depends_on_nothing_is_none():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert pulled([a.detach(), None], [a], [torch.ones(2), torch.ones(2)]) == [None]
    found = pulled([2 * a, b], [a, b], [torch.ones(2), None])
    assert torch.equal(found[0], torch.full((2,), 2.0))
    assert found[1] is None


def test_unknown_memory():
    with pytest.raises(InputError, match="'none'"):
        Graphs([], "none")
