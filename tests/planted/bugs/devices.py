"""What only another device than the processor shows."""

from tests.planted.engine import bug

PLAN, PRETENDED = "decomposition/plan.py", "gpu/test_pretended"

BUGS = (
    bug("the set of rotations stays on the processor", PLAN, "Design.coset",
        r"(matrices)\.to\([^)]*\)", r"\1", PRETENDED),
    bug("every pass reads a number from the device", PLAN, "Design.coset",
        r"@ shift, weight,", "@ shift, weight + 0 * float(shift.sum()),", PRETENDED),
)  # fmt: skip
