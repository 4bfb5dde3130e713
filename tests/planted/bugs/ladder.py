"""The precision ladder: rows in another precision than their name, differences of what is not paired."""

from tests.planted.engine import bug

LADDER, TESTED = "decomposition/ladder.py", "decomposition/test_ladder"

BUGS = (
    bug("the ladder's row of float64 computed in float32", LADDER, "in_precision",
        r"torch\.float64 if name == \"float64\" else torch\.float32", "torch.float32", TESTED),
    bug("the ladder converts the model itself, not a copy", LADDER, "in_precision",
        r"copy\.deepcopy\(model\)", "model", TESTED),
    bug("half precision asked for and float32 measured", LADDER, "in_precision",
        r"torch\.autocast\(device\.type, dtype=getattr\(torch, name\)\)", "contextlib.nullcontext()", TESTED),
    bug("what a precision adds without taking off the reference", LADDER, "_rung",
        r"_ratio\(e - e0, s\)", "_ratio(e, s)", TESTED),
    bug("clusters of a ladder forgotten", LADDER, "_rung",
        r"statistics\.encode\(own\.clusters\)", "statistics.encode(list(range(len(own.clusters))))", TESTED),
    bug("the interval of a difference as if it were of one cluster", LADDER, "_ratio",
        r"found\.above\)\)", "0 * found.above))", TESTED),
)  # fmt: skip
