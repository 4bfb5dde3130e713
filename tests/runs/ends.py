"""Whether two runs ended alike: the same weights, optimiser state and records, bit for bit, times exempt."""

import torch

from equiscope import records
from equiscope.runs.checkpoint import load


def timeless(folder, kinds=("train", "measure")):
    times = ("n", "sha", "seconds")
    return [
        {k: v for k, v in record.items() if k not in times}
        for record in records.read(folder.records)
        if record["kind"] in kinds
    ]


def same_bits(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b


def assert_same_end(folder, whole):
    mine, theirs = load(folder.checkpoint), load(whole.checkpoint)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert same_bits(mine[part], theirs[part]), part
    order = lambda record: (record["kind"], record["step"], record.get("part", ""))  # noqa: E731
    assert sorted(timeless(folder), key=order) == sorted(timeless(whole), key=order)
