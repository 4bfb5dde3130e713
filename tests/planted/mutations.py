"""Bugs that would make the measure silently wrong: one replacement in the source each, and the tests that catch it."""

from dataclasses import dataclass

ROTATIONS, ACTIONS, ORBIT = "symmetry/rotations.py", "symmetry/actions.py", "decomposition/orbit.py"
BATCHES, COLLECT, SPLIT = "decomposition/batches.py", "decomposition/collect.py", "decomposition/split.py"
POOL, NOISE, STATISTICS = "decomposition/pool.py", "decomposition/noise.py", "decomposition/statistics.py"
PRESERVE, SPECTRUM, TABLES = "decomposition/preserve.py", "decomposition/spectrum.py", "decomposition/tables.py"
COMPARE, TWIRLED, LOSSES = "decomposition/compare.py", "decomposition/twirled.py", "decomposition/losses.py"
PYG, ASE, DESIGN = "adapters/pyg.py", "adapters/ase_run.py", "decomposition/design.py"


@dataclass(frozen=True)
class Mutation:
    """One planted bug.

    Attributes:
        name: what the bug is, in words.
        file: source file under ``src/equiscope``.
        old, new: the text replaced, which occurs exactly once in the file, and what it becomes.
        tests: test files under ``tests`` of which at least one test must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _m(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, old, new, tuple(f"{t}.py" for t in tests))


D, T, SETS = "decomposition/test_", "tasks/datasets/test_", "tasks/datasets"

MUTATIONS = (
    # Rotations.
    _m("uniform numbers for normal ones: not Haar", ROTATIONS,
       "np.random.Generator(bits).standard_normal(4)", "np.random.Generator(bits).random(4) - 0.5",
       "symmetry/test_rotations"),
    _m("Haar sampler of one quarter of the quaternions", ROTATIONS,
       "normals = torch.randn(count, 4, generator=generator, dtype=torch.float64, device=device)",
       "normals = torch.rand(count, 4, generator=generator, dtype=torch.float64, device=device)",
       "symmetry/test_rotations"),
    _m("rotations of one sample shared across samples", COLLECT,
       "self._c.design.seed, self.ids, stream)", "self._c.design.seed, [0] * len(self.ids), stream)",
       f"{D}measure"),
    _m("the key of a rotation ignores the sample", ROTATIONS,
       "key=[seed, int(sample)]", "key=[seed, 0]", "symmetry/test_rotations"),
    _m("the same shift for every coset", COLLECT,
       "self._c.design.seed, self.ids, stream)", "self._c.design.seed, self.ids, 0)",
       f"{D}measure"),
    _m("the key of a rotation ignores the coset", ROTATIONS,
       "counter=[0, 0, 0, stream]", "counter=[0, 0, 0, 0]", "symmetry/test_rotations"),
    _m("wrong half of the octahedral group taken for T", ROTATIONS,
       "even = {(0, 1, 2), (1, 2, 0), (2, 0, 1)}", "even = {(0, 1, 2), (1, 0, 2)}", "symmetry/test_rotations"),
    _m("the weights of a quadrature ignored", COLLECT,
       "weights = c.design.rotations.weights.tolist()", "weights = [1 / len(matrices)] * len(matrices)", f"{D}measure"),
    _m("parity ignored under O(3): no improper half", ROTATIONS,
       'if symmetry != "O3":', "if symmetry:", f"{D}measure"),
    _m("parity ignored by the action", ACTIONS,
       "if irrep.p < 0:", "if False:", "symmetry/test_actions"),
    # Actions.
    _m("Wigner matrix transposed", ACTIONS,
       '"mp,npk->nkm"', '"mp,npk->nmk"', "symmetry/test_actions"),
    _m("matrix tensors turned on one side by the transpose", ACTIONS,
       'return torch.einsum("nij,ncjk,nlk->ncil", rotations, values.double(), rotations)',
       'return torch.einsum("nij,ncjk,nkl->ncil", rotations, values.double(), rotations)', "symmetry/test_actions"),
    _m("another Voigt order: xy before yz", ACTIONS,
       "torch.tensor([0, 5, 4, 5, 1, 3, 4, 3, 2])\n_MATRIX_TO_VOIGT = torch.tensor([0, 4, 8, 5, 2, 1])",
       "torch.tensor([0, 3, 5, 3, 1, 4, 5, 4, 2])\n_MATRIX_TO_VOIGT = torch.tensor([0, 4, 8, 1, 5, 2])",
       "symmetry/test_actions"),
    _m("the antisymmetric part of a stress kept", ACTIONS,
       "values = (values + values.mT) / 2 if self.symmetric else values", "values = values", "symmetry/test_actions"),
    # The orbit.
    _m("rotated back by g instead of its inverse", ORBIT,
       "inverse = rotations.mT", "inverse = rotations", f"{D}orbit"),
    _m("not rotated back", ORBIT,
       "back[name] = spec.action.act(inverse[sample], rows)", "back[name] = rows.double()", f"{D}orbit"),
    _m("only the first input turns: cell and vectors forgotten", ORBIT,
       "for name, spec in declaration.inputs.items():\n        values, action",
       "for name, spec in list(declaration.inputs.items())[:1]:\n        values, action", f"{D}orbit"),
    _m("the centre ignored", ORBIT,
       "if is_points and centers is not None:", "if False:", f"{D}measure"),
    _m("not moved back to the centre", ORBIT,
       "action.act(turning, selected - middle) + middle", "action.act(turning, selected - middle)", f"{D}orbit"),
    _m("lattice vectors turned about the centre", ORBIT,
       "is_points = name in declaration.points\n", "is_points = action.shape == (3,)\n", f"{D}orbit"),
    _m("padding counted in the centre", ORBIT,
       "masked = name in declaration.points and declaration.mask is not None", "masked = False", f"{D}measure"),
    _m("rotations rounded to float32", ORBIT,
       "turning = rotations[rows.sample]", "turning = rotations[rows.sample].float().double()", f"{D}orbit"),
    _m("inputs turned in float32", ORBIT,
       "selected = rows.select(values, action.shape).double()",
       "selected = rows.select(values, action.shape).float().double()", f"{D}measure"),
    _m("mask of the outputs forgotten: padding leaks", BATCHES,
       'mask = mask if per == "atom" else None', "mask = None", f"{D}measure"),
    _m("a model that edits its input spoils the next pass", BATCHES,
       "(v.clone() if isinstance(v, Tensor) else v)", "v", f"{D}batches"),
    # The split.
    _m("ddof 0 between cosets", SPLIT,
       "self._between / max(self._cosets - 1, 1)", "self._between / self._cosets", f"{D}split"),
    _m("the variance between cosets forgotten", SPLIT,
       "variance = self._within_sum / self._cosets + between",
       "variance = self._within_sum / self._cosets", f"{D}split"),
    _m("the factor M/(M-1) on a coset", SPLIT,
       "variance = self._within_sum / self._cosets + between",
       "m = self._cosets * (12 if float(self._within_sum.max()) > 1e-20 else 1)\n"
       "        variance = (self._within_sum + self._between) / self._cosets * m / (m - 1)", f"{D}split"),
    _m("Welford's update without its factor", SPLIT,
       "self._between.add_(self._mean_square(step), alpha=1 - 1 / self._cosets)",
       "self._between.add_(self._mean_square(step))", f"{D}split"),
    _m("squares summed in float32", SPLIT,
       "return self._sample_mean(rows.square().flatten(2).mean(dim=-1))",
       "return self._sample_mean(rows.float().square().flatten(2).mean(dim=-1).double())", f"{D}measure"),
    _m("sums not centred: a small variance on a large mean is lost", SPLIT,
       "self._reference = prediction\n", "self._reference = torch.zeros_like(prediction)\n", f"{D}split"),
    _m("jackknife with a wrong factor", SPLIT,
       "return count * full - (count - 1) / count * rest", "return 2 * full - rest / count", f"{D}split"),
    _m("plug-in twirled loss instead of the jackknife", SPLIT,
       "equivariance = total - self._jackknife()", "equivariance = total - self.sample_loss(self.twirled_prediction())",
       f"{D}split"),
    _m("logits averaged where probabilities were asked for", LOSSES,
       "return torch.softmax(logits.double(), dim=-1)", "return logits.double().sigmoid()", f"{D}losses"),
    _m("vector norm squared", LOSSES,
       "return (prediction - target).norm(dim=-1)", "return (prediction - target).square().sum(dim=-1)", f"{D}losses"),
    _m("labels that broadcast over atoms let through", SPLIT,
       "if prediction.shape[:2] != self.target.shape[:2]:", "if False:", f"{D}bad_input"),
    _m("predictions that broadcast over rotations let through", SPLIT,
       "if prediction.shape != self._shape:", "if False:", f"{D}bad_input"),
    _m("answers in reused memory not copied", ORBIT,
       "rows_of(v, k, batch, declaration).clone()", "rows_of(v, k, batch, declaration)", f"{D}edge_cases"),
    _m("an in-place loss spoils the labels", SPLIT,
       "target = self.rows.scatter(self.target, self.target_layout).clone()",
       "target = self.rows.scatter(self.target, self.target_layout)", f"{D}edge_cases"),
    _m("an infinite loss makes a percent of zero", COLLECT,
       "    if labelled:\n", "    if False:\n", f"{D}bad_input"),
    _m("numbers hidden in a nested dict reach the model unturned", BATCHES,
       "            refuse_hidden(name, value)\n        self", "            pass\n        self", f"{D}bad_input"),
    _m("soft labels read as classes", "decomposition/checks.py",
       "    if loss.classes:\n", "    if False:\n", f"{D}bad_input"),
    # Noise.
    _m("the noise floor forgotten", POOL,
       "self.floor = _divide(", "self.floor = 0 * _divide(", f"{D}noise"),
    _m("there and back leaves a net rotation", NOISE,
       "back = rotated(there, turns.mT, declaration)", "back = rotated(there, turns, declaration)", f"{D}noise"),
    _m("identical repeats left out of the floor", NOISE,
       "+ repeat.change / 2 + rounding", "+ rounding", f"{D}noise"),
    _m("the float64 copy's rounding left out of the floor", NOISE,
       "copied**2 * repeat.square", "0.0 * repeat.square", f"{D}noise"),
    _m("random models let through", NOISE,
       "RANDOM_MODEL = 1e-3", "RANDOM_MODEL = 1e3", f"{D}noise"),
    # A second coset on a part of the samples.
    _m("what second cosets add not carried over to the other samples", STATISTICS,
       "return first + mean + np.where", "return first + np.where", f"{D}design"),
    _m("two-phase deviations not weighted by n / k", STATISTICS,
       "len(first) / known.sum() * (second - mean)", "(second - mean)", f"{D}design"),
    _m("second cosets chosen alike for every seed", DESIGN,
       "key=[self.seed, int(i)]", "key=[0, int(i)]", f"{D}design"),
    _m("the samples of a partial design left out of order", COLLECT,
       ".take(back)", ".take(back.argsort())", f"{D}design"),
    # Statistics.
    _m("mean of ratios", STATISTICS,
       "value = float(a.sum()) / denominator if denominator != 0 else math.nan",
       "value = float((a / b).mean()) if denominator != 0 else math.nan", f"{D}statistics"),
    _m("normal instead of Student's quantiles", STATISTICS,
       "factor = math.exp(stats.t.ppf(0.5 + level / 2, freedom)", "factor = math.exp(stats.norm.ppf(0.5 + level / 2)",
       f"{D}statistics"),
    _m("plain degrees of freedom under heavy clusters", STATISTICS,
       "freedom = max(2.0, min(n - 1.0, 2 * n / max(kurtosis - 1, 1e-9)))", "freedom = n - 1.0", f"{D}statistics"),
    _m("jackknife error with a wrong factor", STATISTICS,
       "jackknife = math.sqrt((n - 1) / n *", "jackknife = math.sqrt(1 / (n * (n - 1)) *", f"{D}statistics"),
    _m("standard error of the total taken for that of the mean", STATISTICS,
       "error = math.sqrt(n / (n - 1) * spread)", "error = math.sqrt(n * n / (n - 1) * spread)", f"{D}statistics"),
    _m("clusters ignored", POOL,
       "codes, count = statistics.encode(collected.clusters)", "codes, count = statistics.encode(collected.ids)",
       f"{D}measure"),
    # Pooling.
    _m("weights of outputs ignored", POOL,
       "share = {p.name: declaration.outputs[p.name].weight for p in counted}",
       "share = {p.name: 1.0 for p in counted}",
       f"{D}measure"),
    _m("weighting by sample and by component swapped", POOL,
       'if weighting == "sample"', 'if weighting == "component"', f"{D}measure"),
    _m("R² of a scalar against zero", POOL,
       "return float(square.mean() - (centre @ centre) / (weights.mean() * dimension))", "return float(square.mean())",
       f"{D}measure"),
    _m("contribution and own percent mixed up", POOL,
       "contribution_percent=100 * _divide(share.get(p.name, 0.0) * p.mean_equivariance, total)",
       "contribution_percent=100 * _divide(p.mean_equivariance, p.mean_total)", f"{D}measure"),
    _m("percent of the twirled instead of the total loss", POOL,
       "b = sum(share[p.name] * p.total for p in counted)",
       "b = sum(share[p.name] * (p.total - p.equivariance) for p in counted)", f"{D}measure"),
    # Side effects.
    _m("random state not restored", PRESERVE,
       "module.training = flag\n        _set_random_states(states)", "module.training = flag", f"{D}measure"),
    _m("gradients not set aside", PRESERVE,
       "tensor.grad = None", "pass", f"{D}measure"),
    _m("buffers not restored", PRESERVE,
       "tensor.copy_(value)", "pass", f"{D}measure"),
    _m("measured in train mode", PRESERVE,
       "module.training = False", "pass", f"{D}measure"),
    # Spectrum, comparison, averaged models.
    _m("spectrum from pairs within a coset too", SPECTRUM,
       "for s in range(r + 1, cosets)]", "for s in range(r, cosets)]", f"{D}spectrum"),
    _m("spectrum from uncentred pairs", SPECTRUM,
       "centred = centre(gram, means, mean_gram, r, s)", "centred = gram[:, r, :, s]", f"{D}spectrum"),
    _m("dimension of the degree forgotten in the spectrum", SPECTRUM,
       "(2 * d + 1) * power", "power", f"{D}spectrum"),
    _m("comparison taken as unpaired", COMPARE,
       "influence = _influence(second) - _influence(first)", "influence = _influence(second) + _influence(first)",
       f"{D}compare"),
    _m("averaged model turned the wrong way back", TWIRLED,
       "spec.action.act(turns.mT[sample], rows)", "spec.action.act(turns[sample], rows)", f"{D}twirled"),
    _m("averaged model summed, not averaged", TWIRLED,
       "chosen.weights.repeat(cosets) / cosets", "chosen.weights.repeat(cosets)", f"{D}twirled"),
    # Doors.
    _m("duplicates of a distributed sampler counted twice", TABLES,
       "first[1:] = ordered[1:] != ordered[:-1]", "first[1:] = True", f"{D}metric"),
    _m("all graphs turned by the rotation of the first", PYG,
       "return torch.arange(self.size, device=device).repeat_interleave(counts)",
       "return torch.zeros_like(torch.arange(length, device=device))", "adapters/test_pyg"),
    _m("graphs of a batch counted as one sample", PYG,
       'return GraphRows(self._nodes, None, 1, self.size, len(self._nodes), "nodes")',
       'return GraphRows(0 * self._nodes, None, 1, self.size, len(self._nodes), "nodes")', "adapters/test_pyg"),
    _m("ASE: the cell not turned", ASE,
       'atoms.set_cell(batch["cell"][0].numpy(), scale_atoms=False)', "pass", "adapters/test_ase"),
    _m("ASE: answers of the calculator's cache taken for new ones", ASE,
       "calculator.reset()", "pass", "adapters/test_ase"),
    _m("ASE: energy of the whole structure against energy per atom", ASE,
       "energy / len(atoms) if self.plan.per_atom else energy", "energy", "adapters/test_ase"),
    # Data sets: labels that would be wrong without a word.
    _m("SPICE: the gradient taken for the force", f"{SETS}/spice.py",
       "-units.force(_unit(gradient, where))", "units.force(_unit(gradient, where))", f"{T}spice"),
    _m("SPICE: bohr assumed whatever the file says", f"{SETS}/spice.py",
       "scale = units.length(_unit(positions, where))", "scale = units.BOHR", f"{T}spice"),
    _m("ANI: forces left in hartree", f"{SETS}/ani.py",
       "forces=f.astype(np.float64) * HARTREE", "forces=f.astype(np.float64)", f"{T}ani"),
    _m("rMD17: pieces in the file's order, not in time", f"{SETS}/md17.py",
       "(old[frames] * self.pieces) // end", "(frames * self.pieces) // count", f"{T}md17"),
    _m("MPtrj: stress with VASP's sign", f"{SETS}/mptrj.py",
       "else -np.array(stress", "else np.array(stress", f"{T}mptrj"),
    _m("a pickle may call what it names", f"{SETS}/pickles.py",
       'raise pickle.UnpicklingError(f"it asks for {module}.{name}")', "return super().find_class(module, name)",
       f"{T}pickles"),
    _m("a sample that depends on the reader's blocks", f"{SETS}/stream.py",
       "first += len(block)", "first += 1", f"{T}stream"),
    _m("memory-mapped frames one row off", f"{SETS}/mapped.py",
       "np.repeat(self.starts[frames] - (ends - atoms), atoms)", "np.repeat(self.starts[frames] - ends + 1, atoms)",
       f"{T}mapped"),
    _m("reference energies of compositions without their weights", "tasks/forcefield/real.py",
       "trained[used], weight[used])", "trained[used])", "tasks/forcefield/test_real"),
    _m("reference energies of all frames for the training part's", "tasks/forcefield/real.py",
       "row = torch.from_numpy(which) + len(kinds) * (~train).long()", "row = torch.from_numpy(which)",
       "tasks/forcefield/test_real"),
    # Analyses of the two losses.
    _m("curvature: the second derivative of the network left out", "analysis/parts.py",
       "total += self.flat(found[len(rows) :])", "pass", "analysis/test_parts"),
    _m("curvature: the twirled loss without the equivariance error taken off", "analysis/parts.py",
       'return {"twirled": total - equivariance,', 'return {"twirled": total,', "analysis/test_parts"),
    _m("Lanczos: the smallest Ritz value for the largest", "analysis/lanczos.py",
       "return float(self.nodes[-1])", "return float(self.nodes[0])", "analysis/test_lanczos"),
    _m("Lanczos: weights from the last entries of the eigenvectors", "analysis/lanczos.py",
       "vectors[0] ** 2, residual", "vectors[-1] ** 2, residual", "analysis/test_lanczos"),
    _m("curvature: Student's interval of a few skewed probes alone", "analysis/hessian.py",
       "reach = np.maximum(student, float(stats.norm.ppf(0.975)) * np.sqrt(bound))", "reach = student",
       "analysis/test_hessian"),
    _m("curvature: standard deviation taken for the standard error", "analysis/hessian.py",
       "np.sqrt(bound)) / math.sqrt(len(runs))", "np.sqrt(bound))", "analysis/test_hessian"),
    _m("gradients: products of a group with itself counted", "analysis/pairs.py",
       "off = gram - np.diag(np.diag(gram))", "off = gram", "analysis/test_pairs"),
    _m("gradients: jackknife without its factor n - 1", "analysis/pairs.py",
       "return float((n - 1) / n * ", "return float(1 / n * ", "analysis/test_pairs"),
    _m("relations: the trend not taken out", "analysis/relations.py",
       "return values - design @", "return values - 0 * design @", "analysis/test_relations"),
    # Voxels.
    _m("grid: centre at N/2", "symmetry/grids.py",
       "axis = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2",
       "axis = torch.arange(size, dtype=torch.float64, device=device) - size / 2", "symmetry/test_grids"),
)  # fmt: skip

# Their tests take seconds: caught in every run of the suite, the others by `make planted`.
QUICK = (
    "rotated back by g instead of its inverse",
    "parity ignored by the action",
    "a model that edits its input spoils the next pass",
)
