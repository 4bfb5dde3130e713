"""What a model must be for its losses to be differentiated twice by its parameters; errors name the layer at fault."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from equiscope.analysis.activations import listening
from equiscope.decomposition.orbit import Forward
from equiscope.decomposition.preserve import refuse_lazy, untouched
from equiscope.errors import InputError, UnsuitedModelError

HALF = (torch.float16, torch.bfloat16)
# Relative step by which parameters without a gradient are moved to see whether the answer hangs on them after all.
_MOVE = 1e-2
# How torch says that an operation has no second derivative.
_ONCE = ("not implemented", "not differentiable", "ouble backward", "differentiate twice")


def chosen_parameters(model: Any, prefixes: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The parameters that are analysed: all, or those whose name is or starts with (``"head."``) one of ``prefixes``.

    Raises:
        InputError: no module, or an unknown name.
        UnsuitedModelError: frozen parameters, or half precision; the layer is named.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"gradients need a torch module with parameters, got {type(model).__name__}")
    refuse_lazy(model)
    own = dict(model.named_parameters())
    if isinstance(prefixes, str):
        raise InputError(f"parameters must be a list of names, parameters=[{prefixes!r}]")
    if prefixes is not None:
        for prefix in prefixes:
            if not any(_below(name, prefix) for name in own):
                known = ", ".join(list(own)[:8])
                raise InputError(f"no parameter of {type(model).__name__} is named {prefix!r}; it has {known} …")
        own = {name: p for name, p in own.items() if any(_below(name, prefix) for prefix in prefixes)}
    if not own:
        raise InputError(f"{type(model).__name__} has no parameters: there is nothing to differentiate by")
    frozen = [name for name, p in own.items() if not p.requires_grad]
    if frozen:
        raise UnsuitedModelError(
            f"{len(frozen)} of {len(own)} parameters are frozen (requires_grad=False), first {frozen[0]!r}: call "
            ".requires_grad_(True) on them, or leave them out with parameters=[names to analyse]"
        )
    half = [name for name, p in own.items() if p.dtype in HALF]
    if half:
        raise UnsuitedModelError(
            f"parameter {half[0]!r} is {own[half[0]].dtype}: products of second derivatives drown in its rounding; "
            "analyse a copy in single precision, copy.deepcopy(model).float(), with batches to match"
        )
    return own


class _KeptGraphs(TorchFunctionMode):
    """Every ``torch.autograd.grad`` within can be differentiated again; ``dropped`` says whether one could not."""

    dropped = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            self.dropped |= not kwargs.get("create_graph")
            kwargs = {**kwargs, "create_graph": True, "retain_graph": True}
        return func(*args, **kwargs)


def keeping_graphs(forward: Forward, call: Callable[[], Any]) -> Forward:
    """``forward`` as derivatives of its answer by the parameters need it.

    Most potentials take the forces −dE/dx of an energy without ``create_graph`` in eval mode, which cuts them off the
    parameters. Where ``call``, which runs the model once, shows that, every call is told to keep the graph.
    """
    with torch.enable_grad(), _KeptGraphs() as seen:
        call()
    if not seen.dropped:
        return forward

    def kept(model: Any, batch: Any) -> Any:
        with _KeptGraphs():
            return forward(model, batch)

    return kept


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix if prefix.endswith(".") else f"{prefix}.")


@contextlib.contextmanager
def differentiable(model: nn.Module, call: Callable[[], Any]) -> Iterator[None]:
    """Gradients on, fused attention on its math kernel (the others have no second derivative), errors explained.

    Args:
        call: runs the model once, to find the layer that an error comes from.

    Raises:
        UnsuitedModelError: for an operation in place, or one without first or second derivative.
    """
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    except RuntimeError as error:
        message = str(error)
        if "inplace operation" in message or "in-place operation" in message:
            where = ", ".join(map(repr, _changed_in_place(model, call))) or "(none of the layers' own answers)"
            raise UnsuitedModelError(
                f"an operation in place spoils a value that the gradient needs: after layer {where} its answer is "
                "changed in memory; write x = x + y instead of x += y, and inplace=False"
            ) from error
        if any(words in message for words in _ONCE):
            where = ", ".join(map(repr, _layers_of(model, call, message))) or f"of {type(model).__name__}"
            raise UnsuitedModelError(
                f"layer {where} has no second derivative in torch ({message.splitlines()[0]}): write it out in plain "
                "operations, or analyse gradients only"
            ) from error
        if "does not require grad" in message:
            raise UnsuitedModelError(
                "the answer does not depend on the parameters differentiably: something on the way detaches it, or "
                "scripted code makes forces of an energy without create_graph=True "
                f"({_last_with_graph(model, call)})"
            ) from error
        raise


@contextlib.contextmanager
def only(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients by these parameters alone: graphs hold nothing that others would need."""
    chosen = {id(parameter) for parameter in parameters}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _heard(model: nn.Module, call: Callable[[], Any]) -> list[tuple[str, Tensor, int, Any]]:
    """(name, answer, its version and the node that made it) of every innermost layer, as it answered in one call."""
    seen: list[tuple[str, Tensor, int, Any]] = []

    def note(name: str, answer: Any) -> None:
        if isinstance(answer, Tensor):
            seen.append((name, answer, answer._version, answer.grad_fn))

    inner = {name: part for name, part in model.named_modules() if name and not list(part.children())}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), listening(inner, note):
        call()
    return seen


def _changed_in_place(model: nn.Module, call: Callable[[], Any]) -> list[str]:
    """The layers whose answer was written to after they gave it."""
    return [name for name, answer, version, _ in _heard(model, call) if answer._version != version][:3]


def _layers_of(model: nn.Module, call: Callable[[], Any], message: str) -> list[str]:
    """The layers whose own answer comes from the operation that the message names."""

    def at_fault(node: Any) -> bool:
        # A function of the user's own is not named in torch's message, but it is no node of torch's either.
        own = isinstance(node, torch.autograd.function.BackwardCFunction) and "differentiate twice" in message
        kind = type(node).__name__.removesuffix("Backward0").lower()
        return own or (node is not None and kind in message.lower().replace("_", ""))

    return [name for name, _, _, node in _heard(model, call) if at_fault(node)][:3]


def _last_with_graph(model: nn.Module, call: Callable[[], Any]) -> str:
    """The layer where the graph ends."""
    last = [name for name, _, _, node in _heard(model, call) if node is not None]
    return f"the last layer whose answer still has a gradient is {last[-1]!r}" if last else "no layer's answer has one"


def refuse_hidden_dependence(model: nn.Module, without: Sequence[str], answer: Callable[[], Tensor]) -> None:
    """Parameters without a gradient must not change the answer; where they do, something cannot be differentiated.

    Raises:
        UnsuitedModelError: naming the parameters.
    """
    if not without:
        return
    before, own = answer(), dict(model.named_parameters())
    with untouched(model):
        with torch.no_grad():
            for name in without:
                own[name].add_(_MOVE * (own[name].abs() + 1))
        changed = not torch.equal(answer(), before)
    if changed:
        raise UnsuitedModelError(
            f"the answer changes with the parameters {list(without)[:5]}, but no gradient reaches them: an operation "
            "after their layer is not differentiable (detach, rounding, argmax, .item(), numpy) — replace it, or leave "
            "them out with parameters=[…]"
        )


def refuse_once_differentiable(gradients: Sequence[Tensor | None]) -> None:
    """Torch puts an error node where a function cannot be differentiated again, but skips it when it is asked for the
    derivative by certain leaves only: a second derivative would then silently lack a term.

    Raises:
        RuntimeError: as torch would, had it looked.
    """
    todo = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("trying to differentiate twice a function that was marked once_differentiable")
        todo += [following for following, _ in node.next_functions if following is not None]
