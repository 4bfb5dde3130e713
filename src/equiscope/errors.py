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
    **dict.fromkeys(("plotly", "jinja2", "markupsafe", "matplotlib"), "report"),
    **{"torch_geometric": "pyg", "hydra_plugins": "studies", "nequip": "peers", "shtab": "completion",
       "pandas": "plot"},
}

#: What to do for want of a package that others need, by the name that their error has.
INSTEAD = dict.fromkeys(
    ("pyg-lib", "torch-cluster"),
    "install it as PyTorch Geometric's pages say (pypi.org has none), or do without: import equiscope.adapters.pyg, "
    "and call equiscope.adapters.pyg.without_pyg_lib() once",
)


class EquiscopeError(Exception):
    """Base of every error raised on purpose by equiscope."""


class InputError(EquiscopeError, ValueError):
    """An argument, a batch or a model output is not what the call needs."""


class DeclarationError(InputError):
    """The declaration of what rotates does not match the batch or the model's outputs."""


class NonFiniteError(InputError):
    """A NaN or an infinity in an input, a target or a prediction."""


class UnsuitedModelError(InputError):
    """The model, or what is declared of it, cannot have the analysis that was asked for, however it is set."""


class RandomModelError(EquiscopeError):
    """The model answers differently to the same input, so its spread is not equivariance error."""


class ModelError(EquiscopeError, RuntimeError):
    """A model, or a function of the user's that runs it, raised an error of its own, which is the ``__cause__``."""


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


def around(kind: type[EquiscopeError], message: str, cause: BaseException) -> EquiscopeError:
    """An error of ``kind`` for what code of the user's raised, which is also of that error's own class.

    Who catches that class, running out of memory for example, goes on catching it. To be raised ``from`` the cause.
    """

    def keep(self: Exception, text: str) -> None:
        Exception.__init__(self, text)

    own = {"__init__": keep, "__str__": lambda self: self.args[0], "__reduce__": lambda self: (kind, self.args),
           "__module__": kind.__module__, "__qualname__": kind.__qualname__}  # fmt: skip
    try:
        return type(kind.__name__, (kind, type(cause)), own)(message)
    except TypeError:  # classes that cannot be combined
        return kind(message)


def version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def first_line(error: BaseException) -> str:
    """``KeyError: 'x'``, an error's type and the first line of what it says, with the remedy where one is known."""
    lines = [type(error).__name__, *str(error).strip().splitlines()[:1]]
    lines += [text for name, text in INSTEAD.items() if isinstance(error, ImportError) and name in lines[-1]][:1]
    return ": ".join(lines)


def check_count(name: str, value: object, low: int = 0) -> None:
    """An integer of 64 bits, from ``low`` up.

    Raises:
        InputError: naming the argument and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
        bound = " and < 2**63" if isinstance(value, int) and value >= 2**63 else ""
        raise InputError(f"{name} must be an integer >= {low}{bound}, got {value!r}")
