"""Packages as if they were not installed, for a while."""

import contextlib
import sys

import equiscope


@contextlib.contextmanager
def without(*packages):
    """They cannot be imported, and of the report nothing has been; afterwards the modules of before are back.

    A module made anew inside and left there would have classes of its own, which are strangers to those of before.
    """

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def forgotten():
        beginnings = tuple(f"{package}." for package in ("equiscope.report", *packages))
        return [name for name in sys.modules if f"{name}.".startswith(beginnings)]

    kept = {name: sys.modules.pop(name) for name in forgotten()}
    report, missing = vars(equiscope).pop("report", None), Missing()
    sys.meta_path.insert(0, missing)
    try:
        yield
    finally:
        sys.meta_path.remove(missing)
        for name in forgotten():
            del sys.modules[name]
        sys.modules.update(kept)
        vars(equiscope).update({} if report is None else {"report": report})
