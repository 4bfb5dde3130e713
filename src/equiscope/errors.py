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


class DataError(EquiscopeError):
    """A data set cannot be made or read."""


class IntegrityError(EquiscopeError):
    """A stored file (records, checkpoint, data) is damaged: its checksum does not match its content."""


class RunError(EquiscopeError):
    """A training run cannot start or go on."""
