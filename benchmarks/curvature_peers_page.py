"""What curvature_peers.py measured, as a page."""

from __future__ import annotations

from typing import Any

OURS, CURVLINOPS, EIGENTHINGS = TOOLS = ("equiscope", "curvlinops", "hessian-eigenthings")
# Relative error above which a product in float64 is wrong.
WRONG = 1e-6


def page(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Curvature beside curvlinops and hessian-eigenthings",
        "",
        _text(f"""`make curvature-peers`. curvlinops-for-pytorch 3.0.1, hessian-eigenthings 1.0.0a5, torch
            {found["torch"]}. The plain squared error on one batch, the same for all three. Each small network has
            one layer of the kind named (width 64, 32 samples of 16 atoms); the force field is the demo's trained
            one on held-out molecules, each turned once, or by all 12 rotations of a T coset. Both peers run under
            torch's math attention: neither takes the second derivative of fused attention by itself."""),
        "",
        "## Right or wrong",
        "",
        "Relative error of one product against fourth-order central differences in float64; bold is wrong.",
        "",
        "| network | matrix | equiscope | curvlinops | hessian-eigenthings |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, case in found["cases"].items():
        for kind, by_tool in case["accuracy"].items():
            lines.append(f"| {name} | {kind.replace('_', '–')} | {' | '.join(map(_error, by_tool.values()))} |")
    lines += ["", *_where(found["where"]), "", "## How fast", "", *_products(found), *_eigenvalues(found)]
    return "\n".join(lines)


def _products(found: dict[str, Any]) -> list[str]:
    low, high = min(found["load"]), max(found["load"])
    lines = [
        _text(f"""CPU milliseconds of one product in float32, one thread, median of interleaved repeats; in brackets the
            median ratio to equiscope in the same repeat. Load {low:.1f} to {high:.1f} on {found["cores"]} cores.
            Bold: the product is wrong."""),
        "",
        "| network | parameters | samples | matrix | equiscope | curvlinops | hessian-eigenthings |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, case in found["cases"].items():
        samples = f"{case['samples']}" + (f" x {case['passes']}" if case["passes"] > 1 else "")
        for kind, by_tool in case["times"].items():
            cells = " | ".join(_cell(case, kind, tool, by_tool.get(tool), 1e3) for tool in TOOLS)
            lines.append(f"| {name} | {case['parameters']:,} | {samples} | {kind.replace('_', '–')} | {cells} |")
    return lines


def _eigenvalues(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        _text(f"""Largest eigenvalue of the Hessian, residual under {found["tolerance"]:g} of it: CPU seconds of the
            whole call (ratio), products, and the error against scipy's `eigsh` on differences of gradients in
            float64."""),
        "",
        "| network | λ_max | equiscope | curvlinops with `eigsh` | hessian-eigenthings |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, case in found["cases"].items():
        cells = []
        for tool in TOOLS:
            own = case["eigenvalues"].get(tool)
            more = f", {own['products']:g} products, error {own['error']:.0e}" if own else ""
            cells.append(_cell(case, "hessian", tool, own, 1) + more)
        lines.append(f"| {name} | {case['lambda_max']:.4g} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        _text("""equiscope keeps the gradient's graph between products while the graphs of all batches stay under 1 GiB,
            and runs the passes of an orbit in one call where that gives the same. Above 1 GiB it makes the graph
            anew for every product, as hessian-eigenthings always does. hessian-eigenthings has no rule to stop: it
            was given the fewest steps that reach the tolerance, found beforehand and not timed. curvlinops leaves
            eigenvalues to scipy, whose `eigsh` makes 20 products before it looks. Building the operators is not
            timed."""),
        "",
    ]


def _where(found: dict[str, Any]) -> list[str]:
    errors = [(row, column, error) for column, rows in found["blocks"].items() for row, error in rows.items()]
    wrong = "; ".join(f"∂ {row} along {column}: {error:.1e}" for row, column, error in errors if error > WRONG)
    right = max(error for *_, error in errors if error <= WRONG)
    count = sum(error > WRONG for *_, error in errors)
    kfac, alone = found["kfac"], found["layer_norm"]
    return [
        _text(f"""Where curvlinops is wrong with LayerNorm: in the Hessian alone. Of the {len(errors)} blocks of the
            LayerNorm network's Hessian, {count} are wrong: the change of the gradient by the normalisation's weight
            when a parameter before it moves ({wrong}, relative to all that moves with that parameter). All others
            agree to {right:.0e}. So the operator is not symmetric: |u·Hv − v·Hu| / (|u| |Hv|) is
            {found["asymmetry"][CURVLINOPS]:.1e}, for equiscope {found["asymmetry"][OURS]:.0e}; Lanczos takes
            symmetry for granted and does not notice. The cause lies in torch. curvlinops takes `jvp` of `jacrev`,
            and `jacrev` makes the backward pass of layer_norm under `vmap`: for layer_norm alone that block is off
            by {alone["jvp of jacrev"]:.2f} of itself, while `jvp` of `grad` is right ({alone["jvp of grad"]:.0e}).
            RMSNorm is made of plain operations and not concerned; the backward pass of GroupNorm has no forward
            mode, and says so."""),
        "",
        _text(f"""Gauss–Newton products and KFAC have no second derivative of the network and are right. KFAC of the
            linear layers around the normalisation, on one datum, where it must be the exact Gauss–Newton block:
            {", ".join(f"error {own['error']:.0e} with {name}" for name, own in kfac.items())}. The normalisation's
            own parameters KFAC refuses: “{kfac["LayerNorm"]["normalisation parameters"]}”."""),
    ]


def _text(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _error(value: float | str) -> str:
    if isinstance(value, str):
        return f"does not run: {value}"
    return f"**{value:.1e}**" if value > WRONG else f"{value:.1e}"


def _cell(case: dict[str, Any], kind: str, tool: str, own: dict[str, Any] | None, scale: float) -> str:
    if own is None:
        return "does not run"
    text = f"{scale * own['seconds']:.3g}" + ("" if tool == OURS else f" ({own['ratio']:.2f})")
    return f"**{text}**" if case["accuracy"][kind][tool] > WRONG else text
