"""What happened in one line: own errors, missing packages, the disk, and what nobody foresaw."""

import errno

import pytest

from equiscope.errors import EXTRAS, EquiscopeError, InputError, check_count, sentence


def raised(error):
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("two\n  lines"), "two lines"),
        (
            ModuleNotFoundError("No module named 'plotly.graph_objects'", name="plotly.graph_objects"),
            "this needs the package plotly, which is not installed: pip install 'equiscope[report]'",
        ),
        (ModuleNotFoundError("No module named 'their_own'", name="their_own"), "pip install their_own"),
        (ImportError("the tracker needs pytorch-lightning"), "the tracker needs pytorch-lightning"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x.csv"), "/data/x.csv: No space left on device; "),
        (OSError("odd"), "odd; choose another place"),
        (KeyError("step"), "KeyError: 'step' (test_errors.py:"),
    ],
)
def test_in_one_line(error, words):
    told = sentence(raised(error))
    assert words in told
    assert "\n" not in told


def test_extras_are_those_of_the_package():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    named = {"hydra_plugins": "hydra-joblib-launcher", "yaml": "hydra-core", "omegaconf": "hydra-core",
             "hydra": "hydra-core", "markupsafe": "jinja2", "lightning": "pytorch-lightning"}  # fmt: skip
    for package, extra in EXTRAS.items():
        wanted = named.get(package, package.replace("_", "-"))
        assert any(line.startswith(wanted) for line in project["optional-dependencies"][extra]), package


def test_own_errors_are_of_one_family():
    assert issubclass(InputError, EquiscopeError)


@pytest.mark.parametrize(
    ("value", "bound"), [(1, ""), (True, ""), (2.0, ""), ("3", ""), (None, ""), (2**63, r" and < 2\*\*63")]
)
def test_a_count_is_an_integer_in_range(value, bound):
    with pytest.raises(InputError, match=rf"probes must be an integer >= 2{bound}, got {value!r}"):
        check_count("probes", value, 2)
    check_count("probes", 2, 2)
