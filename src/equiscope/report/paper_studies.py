"""The paper's figures for each study, read off its vector figures and tables; to compare with, not to reproduce.

Source: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. Rows are (point, first ≤ 2 %, last above 2 % where known, dip, end); at these steps its force fields
predict hardly better than zero (R² under about 0.15), so they are first crossings, not skilled ones.
"""

from __future__ import annotations

COLUMNS = ("point", "first ≤ 2 %", "last above 2 %", "dip", "end")
Row = tuple[str, str, str, str, str]

_DEFAULTS: tuple[Row, ...] = (
    ("EScAIP 6M, seed 1", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
    ("EScAIP 6M, seed 2", "1,720", "1,840", "0.089 % at 4,860", "0.07 %"),
    ("EScAIP 6M, seed 3", "1,900", "1,800", "0.096 % at 4,900", "0.07 %"),
)

PAPER: dict[str, dict[str, tuple[Row, ...]]] = {
    "forcefield": {
        "replicates": _DEFAULTS,
        "model_size": (
            ("6M", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
            ("4M", "1,600", "–", "0.119 % at 5,000", "0.088 %"),
            ("1M", "1,200", "–", "0.149 % at 9,160", "0.047 %"),
        ),
        "data_size": (
            ("950k structures", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
            ("50k", "1,900", "–", "0.112 % at 4,200", "0.12 %"),
            ("5k", "1,900", "–", "0.123 % at 4,600", "0.83 %, rising"),
            ("500, batch 1", "1,200", "–", "0.078 % at 2,500", "5.6 %, rising"),
        ),
        "optimizer": (
            ("AdamW 1e-5", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
            ("Adam 1e-3", "1,400", "4,400", "labelled 1,600", "0.08 %"),
            ("Adam 1e-4", "1,800", "–", "labelled 3,100", "0.08 %"),
            ("SGD 1e-5", "2,800", "–", "0.0053 % at 11,800", "0.18 %"),
        ),
        "augmentation": (
            ("none (its default)", "1,680", "1,920", "0.081 % at 4,740", "0.055 %"),
            ("with augmentation", "–", "–", "–", "1e-7 % and lower, but that run never learned (flat loss)"),
        ),
    },
    "proteinflow": {
        "data_size": (
            ("100 %", "900–1,140", "–", "0.03–0.53 % by flow time", "0.05–6.5 %"),
            ("1 %", "2,000–2,400", "–", "–", "up to 8 % at t = 0.2–0.6, at step 844k"),
            ("0.1 %", "1,100", "–", "–", "up to 18 % at t = 0.9, step 9,500"),
        ),
        "model_size": (
            ("60M", "900–1,140", "–", "0.03–0.53 % by flow time", "0.05–6.5 %"),
            ("400M", "840–990", "–", "–", "0.05–5.9 %"),
        ),
    },
}
