"""The floor of numerical noise under the equivariance error."""

from tests.planted.engine import bug

POOL, NOISE = "decomposition/pool.py", "decomposition/noise.py"

BUGS = (
    bug("the noise floor forgotten", POOL, "_OutputPool.__init__",
        r"self\.floor = ", "self.floor = 0 * ", "decomposition/test_noise"),
    bug("there and back leaves a net rotation", NOISE, "_along_arc",
        r"(\w+) @ (\w+)\.mT, (\w+)\)", r"\1 @ \2, \3)", "decomposition/test_noise"),
    bug("the fault along the arc left in the floor", NOISE, "off_line",
        r"(\w+)\.reshape\(-1, .*\) \* (\w+)", r"0 * \2", "decomposition/test_noise"),
    bug("degrees of freedom of the arc's line forgotten", NOISE, "floor",
        r"(\w+) \+ lost \* (\w+)", r"\1 + \2", "decomposition/test_noise"),
    bug("three floors for a single sample too", NOISE, "floors_allowed",
        r"return max\((\w+), .*\)", r"return \1", "decomposition/test_noise"),
    bug("identical repeats left out of the floor", NOISE, "floor",
        r"\+ (\w+)\.change / 2", "", "decomposition/test_noise"),
    bug("the float64 copy's rounding left out of the floor", NOISE, "floor",
        r"(\w+)\s*\*\*\s*2 \* (\w+)\.square", r"0.0 * \2.square", "decomposition/test_noise"),
    bug("random models let through", NOISE, "RANDOM_MODEL",
        r"1e-3", r"1e3", "decomposition/test_noise"),
)  # fmt: skip
