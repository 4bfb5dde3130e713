"""The errors equiscope raises: every one says what was wrong, the value seen, and what to do."""


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


class ModelError(EquiscopeError, RuntimeError):
    """A model, or a function of the user's that runs it, raised an error of its own, which is the ``__cause__``."""


class DataError(EquiscopeError):
    """A data set cannot be made or read."""


class IntegrityError(EquiscopeError):
    """A stored file (records, checkpoint, data) is damaged: its checksum does not match its content."""


class RunError(EquiscopeError):
    """A training run cannot start or go on."""


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


def first_line(error: BaseException) -> str:
    """``KeyError: 'x'``, an error's type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
