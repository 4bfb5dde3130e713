"""equiscope: how much of a model's loss is there only because it has not learned 3D rotation symmetry perfectly."""

from equiscope import errors
from equiscope.decomposition.measure import measure
from equiscope.decomposition.result import Result
from equiscope.decomposition.twirled import Twirled
from equiscope.symmetry.declaration import Declaration, Input, Output

__version__ = "0.1.0"
__all__ = ["Declaration", "Input", "Output", "Result", "Twirled", "errors", "measure"]
