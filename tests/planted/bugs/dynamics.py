"""What a checkpoint foretells: the floor of noise, the decay, forecasts, refusals."""

from tests.planted.engine import bug

KRYLOV, FORECAST = "analysis/krylov.py", "analysis/forecast.py"
DYNAMICS, KIND = "analysis/dynamics.py", "runs/kinds/dynamics.py"

BUGS = (
    bug("noise: the momentum of the heavy ball left out of its edge", KRYLOV, "Recursion.edge",
        r"2 \* \(1 \+ self\.momentum\) / \(1 - self\.momentum\)", "2.0", "analysis/test_krylov"),
    bug("noise: the average of the weights not filtered", KRYLOV, "Recursion.responses",
        r"averages\.append\(average\)", "averages.append(x)", "analysis/test_krylov"),
    bug("noise: only the diagonal of the part in the Ritz basis", KRYLOV, "noise_floor",
        r"\(form \+ form\.T\) / 2", "np.diag(np.diag(form))", "analysis/test_krylov"),
    bug("curvature: forms of J u with the loss's second derivative left out", "analysis/autograd.py", "Graphs.form",
        r"bent = .*", "bent = flat", "analysis/test_dynamics"),
    bug("decay: the exponent of the error that of the weights", DYNAMICS, "predicted_decay",
        r"\*\* \(2 \* np", "** (1 * np", "analysis/test_dynamics"),
    bug("forecast: measurements after the crossing used to foretell it", FORECAST, "crossing",
        r"last = int\(under\[0\]\) if len\(under\) else len\(p\)", "last = len(p)", "analysis/test_forecast"),
    bug("forecast: an interval without Student's quantile", FORECAST, "crossing",
        r"variance, 0\.0, t\)", "variance, 0.0, 0.3)", "analysis/test_forecast"),
    bug("forecast: more steps than a float holds end the analysis", FORECAST, "steps_worth",
        r"np\.expm1", "math.expm1", "analysis/test_forecast"),
    bug("the training loss's scale taken from a single point", DYNAMICS, "Objective.scale",
        r"math\.isclose\(near, far, rel_tol=1e-2\)", "True", "analysis/test_dynamics"),
    bug("noise: SGD's rate without its momentum", DYNAMICS, "Stepper.recursion",
        r"self\.rate / \(1 - self\.momentum\)", "self.rate", "analysis/test_dynamics"),
    bug("noise: a changing learning rate taken for a constant one", KIND, "_unsteady",
        r"max\(rates\) > \(1 \+ RATE_CHANGE\) \* min\(rates\)", "False", "runs/kinds/test_dynamics"),
    bug("the report tells how the noise fared otherwise than the runs", "report/kinds/dynamics.py", "HISTORY",
        r'"noise": "held \(within 1\.5\) in', '"noise": "held (within 1.5) in all of', "report/kinds/test_dynamics"),
)  # fmt: skip
