"""The errors equiscope raises: every one says what was wrong, the value seen, and what to do."""

from __future__ import annotations

import os
import traceback

#: The extra of equiscope that brings each package which is not needed for measuring alone.
EXTRAS = {
    **dict.fromkeys(("pytorch_lightning", "lightning", "torchmetrics"), "lightning"),
    **dict.fromkeys(("ase", "tqdm"), "ase"),
    **dict.fromkeys(("rdkit", "tblite", "h5py", "gemmi", "ijson", "lmdb", "msgpack"), "data"),
    **dict.fromkeys(("hydra", "omegaconf", "yaml", "tensorboard", "psutil"), "train"),
    **dict.fromkeys(("plotly", "jinja2", "markupsafe", "matplotlib", "great_tables", "pandas"), "report"),
    **{"torch_geometric": "pyg", "hydra_plugins": "studies", "nequip": "peers", "shtab": "completion"},
}


class EquiscopeError(Exception):
    """Base of every error raised on purpose by equiscope."""


class InputError(EquiscopeError, ValueError):
    """An argument, a batch or a model output is not what the call needs."""


class DeclarationError(InputError):
    """The declaration of what rotates does not match the batch or the model's outputs."""


class NonFiniteError(InputError):
    """A NaN or an infinity in an input, a target or a prediction."""


class RandomModelError(EquiscopeError):
    """The model answers differently to the same input, so its spread is not equivariance error."""


class DataError(EquiscopeError):
    """A data set cannot be made or read."""


class IntegrityError(EquiscopeError):
    """A stored file (records, checkpoint, data) is damaged: its checksum does not match its content."""


class RunError(EquiscopeError):
    """A training run cannot start or go on."""


def sentence(error: BaseException) -> str:
    """What happened, in one line: the same words for a person at a terminal and for the answer of a study's job."""
    if isinstance(error, EquiscopeError):
        text = str(error)
    elif isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        extra = EXTRAS.get(package)
        text = f"this needs the package {package}, which is not installed: pip install "
        text += f"'equiscope[{extra}]'" if extra else package
    elif isinstance(error, ImportError):
        text = str(error)
    elif isinstance(error, OSError):
        where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
        text = f"{where}{error.strerror or error}; choose another place, or mend this one, and start again"
    else:
        at = traceback.extract_tb(error.__traceback__)
        place = f" ({os.path.basename(at[-1].filename)}:{at[-1].lineno})" if at else ""
        text = f"{type(error).__name__}: {error}{place}"
    return " ".join(text.split())
