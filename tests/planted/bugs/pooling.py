"""From per-sample figures to one number with its interval: statistics, pooling, spectrum, comparison."""

from tests.planted.engine import bug

POOL, STATISTICS = "decomposition/pool.py", "decomposition/statistics.py"
SPECTRUM, COMPARE = "decomposition/spectrum.py", "decomposition/compare.py"

BUGS = (
    bug("what second cosets add not carried over to the other samples", STATISTICS, "two_phase",
        r"return (\w+) \+ (\w+) \+ np", r"return \1 + np", "decomposition/test_plan"),
    bug("mean of ratios", STATISTICS, "ratio",
        r"value = float\((\w+)\.sum\(\)\) / \w+ if", r"value = float((\1 / b).mean()) if",
        "decomposition/test_statistics"),
    bug("clusters ignored", POOL, "summarise",
        r"encode\((\w+)\.clusters\)", r"encode(\1.ids)", "decomposition/test_measure"),
    bug("weights of outputs ignored", POOL, "counted_outputs",
        r"(\w+)\.weight for", r"1.0 for", "decomposition/test_measure"),
    bug("weighting by sample and by component swapped", POOL, "relative_weights",
        r'(\w+) == "sample"', r'\1 != "sample"', "decomposition/test_measure"),
    bug("R² of a scalar against zero", POOL, "_OutputPool._baseline",
        r"(\w+)\.mean\(\) - \((\w+) @ \2\) / \(.*?\* \w+\)", r"\1.mean()", "decomposition/test_measure"),
    bug("contribution and own percent mixed up", POOL, "_OutputPool.result",
        r"contribution_percent=100 \* (\w+)\(.* \* (\w+)\.mean_equivariance, \w+\)",
        r"contribution_percent=100 * \1(\2.mean_equivariance, \2.mean_total)", "decomposition/test_measure"),
    bug("percent of the twirled instead of the total loss", POOL, "summarise",
        r"(\w+)\(\"total\"\)", r"(\1('total') - \1('equivariance'))", "decomposition/test_measure"),
    bug("R² under O(3) counts pseudoscalars as constants", POOL, "_OutputPool._baseline",
        r"invariants\(\w+\.group\)\.mT", 'invariants("SO3").mT', "decomposition/test_pool"),
    bug("partial designs: what the second coset adds left out elsewhere", POOL, "_equivariance",
        r"return [\w.]*two_phase\(np\.where\(\w+, (\w+) - .*", r"return \1", "decomposition/test_pool"),
    bug("of the card that the batches are on nothing is said", POOL, "summarise",
        r"hardware_notes\(known\.device", "hardware_notes(None", "decomposition/test_pool"),
    # Spectrum and comparison.
    bug("spectrum from pairs within a coset too", SPECTRUM, "Spectrum.powers",
        r"range\((\w+) \+ 1, (\w+)\)", r"range(\1, \2)", "decomposition/test_spectrum"),
    bug("spectrum from uncentred pairs", SPECTRUM, "Spectrum.powers",
        r"centre\((\w+), \w+, \w+, (\w+), (\w+)\)", r"\1[:, \2, :, \3]", "decomposition/test_spectrum"),
    bug("dimension of the degree forgotten in the spectrum", SPECTRUM, "Spectrum.powers",
        r"\(2 \* (\w+) \+ 1\) \* (\w+)", r"\2", "decomposition/test_spectrum"),
)  # fmt: skip
