"""What an attack says of itself: that something held, was refused in one line, or was broken."""

import io
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from equiscope import cli
from equiscope.errors import EquiscopeError


class Broken(AssertionError):
    """An attack succeeded."""


def holds(fact, what="") -> None:
    if not fact:
        raise Broken(what)


@contextmanager
def refused(*kinds, match=""):
    """The body must end in one of these errors, in one line."""
    wanted = kinds or (EquiscopeError,)
    try:
        yield
    except wanted as error:
        holds(match in str(error), f"refused with other words: {error}")
        return
    raise Broken("it was accepted")


def quietly(action):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


def command(*arguments) -> tuple[int, str]:
    """Exit code and everything printed by a command, which must end without a traceback and without "unforeseen"."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = cli.main([str(a) for a in arguments])
    holds("Traceback" not in out.getvalue() and code != cli.UNFORESEEN, out.getvalue()[-300:])
    return code, out.getvalue()
