"""Signatures that name every keyword, also those that are handed on: `help`, notebooks and the API pages show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def handing_on(target: Callable[..., Any], without: Sequence[str] = ()) -> Callable[[Function], Function]:
    """In the signature of a function ``**settings`` becomes the keywords of ``target``, with their defaults.

    Args:
        target: what the function hands its settings to; of its arguments those that have a default.
        without: arguments that the function does not take.
    """

    def spelled(function: Function) -> Function:
        own = inspect.signature(function)
        kept = {name: p for name, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
        more = [
            # What a dataclass makes anew for each is shown as an empty one.
            p.replace(kind=p.KEYWORD_ONLY, default={} if repr(p.default) == "<factory>" else p.default)
            for name, p in inspect.signature(target).parameters.items()
            if name not in kept and name not in without and p.default is not p.empty
        ]
        function.__signature__ = own.replace(parameters=[*kept.values(), *more])  # type: ignore[attr-defined]
        return function

    return spelled
