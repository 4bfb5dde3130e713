"""Every number of the paper that the report sets beside ours, read off its figures, tables and repository.

Source: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. Curves that are drawn beside a run's own come with the run's records, from its task.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from equiscope.report.crossings import SKILL, THRESHOLD

Row = tuple[str, str, str, str, str]
#: Columns of the tables of studies. At the steps of its crossings the paper's force fields predict hardly better than
#: zero (R² under about 0.15), so they are first crossings, not skilled ones.
COLUMNS = ("point", "first ≤ 2 %", "last above 2 %", "dip", "end")
#: The step within which the paper sees the share fall under 2 %.
WINDOW = 10_000
#: The lower end of the paper's range of steps: shorter runs decide nothing.
SHORTEST = 1_000
EASIER = "condition number of the equivariance error about 1,000 times lower (force field)"
EFFICIENCY = "lower loss for the non-equivariant model, on GPUs; no ratio is published"
#: What the names of a pair hold -> (pair in the paper, Pearson, Spearman of logs along training).
_CORRELATIONS = {
    "gradient": ("percent ~ gradient ratio", "percent ~ ratio of gradient norms", 0.75, 0.59),
    "weight variance": ("equivariance error ~ weight variance", "equivariance error ~ weight variance of the head",
                        0.94, 0.99),
}  # fmt: skip

#: The pairs that the paper itself relates.
OWN_PAIRS = tuple(found[0] for found in _CORRELATIONS.values())
#: Pairs whose second member is the first one in another form.
IDENTITIES = ("equivariance error ~ exact form",)

#: Each claim of the abstract, in its order: its title, and what the paper says in our words.
CLAIMS = {
    "measure": (
        "A principled measure: the percent of the loss that imperfect symmetry causes",
        "For convex losses the total loss splits into the loss of the rotation-averaged (twirled) model and an "
        "equivariance error that is never negative, so its share of the total is a percent. The paper estimates it "
        "from 4 or 10 rotations and averages ratios over samples; here the estimators are unbiased and the percent is "
        "a ratio of means. The two differ: the paper’s force field ends at 0.045 % by one, 0.065 % by the other.",
    ),
    "quick": (
        "Models reduce the error to 2 % of the held-out loss within 1,000–10,000 steps",
        "In all three tasks the share falls under 2 % early in training. A model that predicts a constant has no "
        "equivariance error either, so each crossing carries its R², and the verdict rests on the skilled crossing: "
        f"from there to the end of the run the whole 95 % interval is under {THRESHOLD:g} % and R² at least {SKILL:g}.",
    ),
    "robust": (
        "That result is robust to the size of model and data set",
        "The step at which the share falls under 2 % hardly moves with the number of parameters or of training "
        "samples. The paper’s own curves do move at the extremes: the smallest data sets end with a rising share.",
    ),
    "easier": (
        "… because equivariance is the easier task, with a smoother and better-conditioned loss landscape",
        "The paper compares the Hessians of the two parts of the loss: the condition number of the equivariance error "
        "is about 1,000 times lower (force field). Its smallest positive eigenvalue depends on precision and number of "
        "iterations, and the roughness it plots is evaluation noise, so a replication needs the same rotations at "
        "every point and error bars.",
    ),
    "penalty": (
        "The loss penalty of not being equivariant is small throughout training",
        "Averaging the model over rotations would lower its loss by the equivariance error. Throughout means at every "
        f"measurement, whatever the skill; shown is the largest share once the model has skill (R² ≥ {SKILL:g}), and "
        "at the end.",
    ),
    "efficiency": (
        "They may reach a lower test loss than equivariant models for the same compute",
        "… unless the “efficiency gap” of equivariant models is narrowed. Compared are the final losses of "
        "runs on the same data, each annealed to its own end, beside the seconds and FLOPs they took; which model is "
        "symmetric is seen from its records.",
    ),
    "relations": (
        "Relative error, gradients and parameters are related",
        "Along training, the paper relates the percent to the ratio of gradient norms of the two parts, and the "
        "equivariance error to the variance of the head’s weights. Both sides of such a pair fall with time, so the "
        "correlation that is left when a trend in log step is taken out stands beside it.",
    ),
}


@dataclass(frozen=True)
class Told:
    """What the paper reports of one task: the 2 % crossing, the end of training, both by size, each study's table.

    probe: the one that decides, where that is not the headline of a run.
    turned: whether every training sample was given a random orientation; the force field's data have one already.
    """

    crossing: str
    end: str
    sizes: str
    studies: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    probe: str = ""
    turned: bool = False


def counts(task: str, probe: str) -> bool:
    """Whether a probe of a task measures its model: oracles, and others than the one that decides, do not."""
    decides = TASKS.get(task, NOTHING).probe
    return not probe.startswith("oracle") and decides in ("", probe)


def correlation_of(pair: str) -> str:
    """The paper's correlations for a pair of that very name, as a cell of a table."""
    found = next((row for row in _CORRELATIONS.values() if row[0] == pair), None)
    return f"{found[2]:.2f} / {found[3]:.2f} (EScAIP)" if found else "–"


def correlation_words(pair: str) -> str:
    """The paper's correlations for a pair whose name speaks of the same, in words."""
    found = next((row for word, row in _CORRELATIONS.items() if word in pair), None)
    return f"{found[1]}: Pearson {found[2]:.2f}, Spearman {found[3]:.2f} (force field)" if found else ""


_LARGEST = ("1,680", "1,920", "0.081 % at 4,740", "0.055 %")
_LARGEST_FLOW = ("900–1,140", "–", "0.03–0.53 % by flow time", "0.05–6.5 %")

#: In the order of the abstract.
TASKS = {
    "proteinflow": Told(
        turned=True,
        crossing="steps 900–1,140 at every flow time",
        end="0.05 % (t = 0) to 6.5 % (t = 0.9) at step 1.1M; 18 % at t = 0.9 on the way",
        sizes="60M and 400M: steps 840–1,140; 1 % of the data: 2,000–2,400",
        studies={
            "data_size": (
                ("100 %", *_LARGEST_FLOW),
                ("1 %", "2,000–2,400", "–", "–", "up to 8 % at t = 0.2–0.6, at step 844k"),
                ("0.1 %", "1,100", "–", "–", "up to 18 % at t = 0.9, step 9,500"),
            ),
            "model_size": (("60M", *_LARGEST_FLOW), ("400M", "840–990", "–", "–", "0.05–5.9 %")),
        },
    ),
    "forcefield": Told(
        crossing="steps 1,680–1,920 (three seeds), where the model is about the zero predictor (R² ≲ 0.15)",
        end="0.05–0.09 % at step 445,000; at most 0.4 % after the crossing",
        sizes="1M, 4M and 6M parameters: steps 1,200–1,900; 500 to 950,000 structures: 1,200–1,920, but 500 end at "
        "5.6 % and rise",
        studies={
            "replicates": (
                ("EScAIP 6M, seed 1", *_LARGEST),
                ("EScAIP 6M, seed 2", "1,720", "1,840", "0.089 % at 4,860", "0.07 %"),
                ("EScAIP 6M, seed 3", "1,900", "1,800", "0.096 % at 4,900", "0.07 %"),
            ),
            "model_size": (
                ("6M", *_LARGEST),
                ("4M", "1,600", "–", "0.119 % at 5,000", "0.088 %"),
                ("1M", "1,200", "–", "0.149 % at 9,160", "0.047 %"),
            ),
            "data_size": (
                ("950k structures", *_LARGEST),
                ("50k", "1,900", "–", "0.112 % at 4,200", "0.12 %"),
                ("5k", "1,900", "–", "0.123 % at 4,600", "0.83 %, rising"),
                ("500, batch 1", "1,200", "–", "0.078 % at 2,500", "5.6 %, rising"),
            ),
            "optimizer": (
                ("AdamW 1e-5", *_LARGEST),
                ("Adam 1e-3", "1,400", "4,400", "labelled 1,600", "0.08 %"),
                ("Adam 1e-4", "1,800", "–", "labelled 3,100", "0.08 %"),
                ("SGD 1e-5", "2,800", "–", "0.0053 % at 11,800", "0.18 %"),
            ),
            "augmentation": (
                ("none (its default)", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
                ("with augmentation", "–", "–", "–", "1e-7 % and lower, but that run never learned (flat loss)"),
            ),
        },
    ),
    "voxels": Told(
        crossing="steps 4,536–7,288 on 1–25 % of the data; never with all of it (111M, 28M and 7M parameters), by a "
        "network whose strides break the symmetry of the grid by structure",
        end="12.9 % (111M, step 43,740), 20.3 % (28M), 18.7 % (7M, step 160,380)",
        sizes="111M, 28M, 7M end at 12.9 %, 20.3 %, 18.7 %; 1, 10 and 25 % of the data first at 4,536, 6,561 and 7,288",
        probe="SO(3), cubic, noise averaged",
        turned=True,
    ),
}
NOTHING = Told("", "", "")
