"""equiscope: how much of a model's loss is there only because it has not learned 3D rotation symmetry perfectly."""

import importlib
from typing import TYPE_CHECKING, Any

from equiscope import errors

if TYPE_CHECKING:
    from equiscope.decomposition.compare import Comparison, compare
    from equiscope.decomposition.measure import measure
    from equiscope.decomposition.result import Result
    from equiscope.decomposition.twirled import Twirled
    from equiscope.symmetry.declaration import Declaration, Input, Output
    from equiscope.symmetry.grids import GridAction

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Declaration",
    "EquivarianceError",
    "EquivarianceTracker",
    "GridAction",
    "Input",
    "Output",
    "Result",
    "Twirled",
    "adapters",
    "compare",
    "errors",
    "measure",
    "precisions",
    "symmetries",
    "testing",
]

# Loaded on first use: `import equiscope` needs neither the time nor the extras of the libraries behind them, and the
# processes that make data need no torch.
_LAZY = {
    "Comparison": ("equiscope.decomposition.compare", "Comparison"),
    "Declaration": ("equiscope.symmetry.declaration", "Declaration"),
    "EquivarianceError": ("equiscope.decomposition.metric", "EquivarianceError"),
    "EquivarianceTracker": ("equiscope.adapters.lightning", "EquivarianceTracker"),
    "GridAction": ("equiscope.symmetry.grids", "GridAction"),
    "Input": ("equiscope.symmetry.declaration", "Input"),
    "Output": ("equiscope.symmetry.declaration", "Output"),
    "Result": ("equiscope.decomposition.result", "Result"),
    "Twirled": ("equiscope.decomposition.twirled", "Twirled"),
    "adapters": ("equiscope.adapters", None),
    "compare": ("equiscope.decomposition.compare", "compare"),
    "measure": ("equiscope.decomposition.measure", "measure"),
    "precisions": ("equiscope.decomposition.ladder", "precisions"),
    "symmetries": ("equiscope.decomposition.symmetries", None),
    "testing": ("equiscope.testing", None),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'equiscope' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
