"""The split of a loss into its twirled part and the equivariance error, and what is kept of each sample."""

from tests.planted.engine import bug

SPLIT, LOSSES, CHECKS = "decomposition/split.py", "decomposition/losses.py", "decomposition/checks.py"
COLLECT, TABLES, CROSSED = "decomposition/collect.py", "decomposition/tables.py", "decomposition/crossed.py"

BUGS = (
    bug("ddof 0 between cosets", SPLIT, "OutputSplit.values",
        r"([\w.]+) / max\(([\w.]+) - 1, 1\)", r"\1 / \2", "decomposition/test_split"),
    bug("the variance between cosets forgotten", SPLIT, "OutputSplit.values",
        r"variance = (.+) \+ \w+\n", r"variance = \1\n", "decomposition/test_split"),
    bug("the factor M/(M-1) on a coset", SPLIT, "OutputSplit.values",
        r"variance = ([\w.]+) / ([\w.]+) \+ \w+\n",
        r"m = \2 * (12 if float(\1.max()) > 1e-20 else 1)\n"
        r"        variance = (\1 + self._between) / \2 * m / (m - 1)\n", "decomposition/test_split"),
    bug("Welford's update without its factor", SPLIT, "OutputSplit.close_coset",
        r"(_mean_square\(\w+\)), alpha=1 - 1 / [\w.]+\)", r"\1)", "decomposition/test_split"),
    bug("squares summed in float32", SPLIT, "OutputSplit._mean_square",
        r"(\w+)\.square\(\)\.flatten\(2\)\.mean\(dim=-1\)",
        r"\1.float().square().flatten(2).mean(dim=-1).double()", "decomposition/test_measure"),
    bug("sums not centred: a small variance on a large mean is lost", SPLIT, "OutputSplit.add",
        r"([\w.]+) = prediction\n", r"\1 = torch.zeros_like(prediction)\n", "decomposition/test_split"),
    bug("jackknife with a wrong factor", SPLIT, "OutputSplit._jackknife",
        r"return (\w+) \* (\w+) - \(\1 - 1\) / \1 \* (\w+)", r"return 2 * \2 - \3 / \1", "decomposition/test_split"),
    bug("plug-in twirled loss instead of the jackknife", SPLIT, "OutputSplit.values",
        r"self\._jackknife\(\)", "self.sample_loss(self.twirled_prediction())", "decomposition/test_split"),
    bug("logits averaged where probabilities were asked for", LOSSES, "_softmax",
        r"return torch\.softmax\((\w+)\.double\(\), dim=-1\)", r"return \1.double().sigmoid()",
        "decomposition/test_losses"),
    bug("vector norm squared", LOSSES, "vector_norm",
        r"\.norm\(dim=-1\)", r".square().sum(dim=-1)", "decomposition/test_losses"),
    bug("labels that broadcast over atoms let through", SPLIT, "OutputSplit.sample_loss",
        r"if (\w+)\.shape\[:2\] != ([\w.]+)\.shape\[:2\]:", "if False:", "decomposition/test_bad_input"),
    bug("predictions that broadcast over rotations let through", SPLIT, "OutputSplit.check_shape",
        r"if (\w+)\.shape != ([\w.]+):", "if False:", "decomposition/test_bad_input"),
    bug("an in-place loss spoils the labels", SPLIT, "OutputSplit.sample_loss",
        r"target = (.+)\.clone\(\)", r"target = \1", "decomposition/test_edge_cases"),
    bug("an infinite loss makes a percent of zero", COLLECT, "_check_figures",
        r"if labelled:", "if False:", "decomposition/test_bad_input"),
    bug("soft labels read as classes", CHECKS, "_check_target",
        r"if loss\.classes:", "if False:", "decomposition/test_bad_input"),
    bug("labels in tensors told apart by identity", CHECKS, "one_each",
        r"\[\w+\((\w+)\) for \1 in (\w+)\]", r"\2", "decomposition/test_checks"),
    bug("the samples of a partial design left out of order", COLLECT, "Collector._partly",
        r"\.take\((\w+)\)", r".take(\1.argsort())", "decomposition/test_plan"),
    bug("duplicates of a distributed sampler counted twice", TABLES, "Layout._once",
        r"(\w+)\[1:\] = (\w+)\[1:\] != \2\[:-1\]", r"\1[1:] = True", "decomposition/test_metric"),
    bug("crossed: noise within a rotation counted as the network's error", CROSSED, "_components",
        r"\((\w+) - (\w+) / \((\w+) - 1\)\) / \(\3 \* (\w+)\)", r"\1 / (\3 * \4)", "decomposition/test_crossed"),
    bug("crossed: a whole group counted as a sample of rotations", CROSSED, "_components",
        r"(\w+) if \w+ else \1 - 1", r"\1 - 1", "decomposition/test_crossed"),
)  # fmt: skip
