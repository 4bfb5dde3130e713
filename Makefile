# Two commands set everything up: `make demo` (the main job) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Stamps: torch alone, what the demo needs, and everything that tests, docs and benchmarks need.
TORCH := .venv/.torch
DEMO := .venv/.demo
INSTALLED := .venv/.installed
# CPU threads of the demo; by default OMP_NUM_THREADS, or as many of the cores it may use as make it faster.
THREADS ?=

.PHONY: demo test install lint clean

install: $(INSTALLED)

# torch is installed first and pinned, so that no other package chooses its build; pip shows how far it is. Modules are
# compiled when they are first imported, most of them never.
$(TORCH): constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --no-compile -c constraints.txt torch==2.13.0
	touch $@

$(DEMO): $(TORCH) pyproject.toml
	@echo "installing what the demo needs (a minute or so)"
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[demo]'
	touch $@

$(INSTALLED): $(TORCH) pyproject.toml
	@echo "installing what tests, documentation and benchmarks need (a minute or two)"
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
# Tests start many processes, and where nothing is written at import each of them would compile everything anew. Some
# packages hold files that are no Python of this version.
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	touch $@ $(DEMO)

demo: $(DEMO)
	$(BIN)/equiscope demo $(if $(THREADS),--threads $(THREADS))

# One thread per process: two OpenMP threads on a busy machine are many times slower than one.
test: $(INSTALLED) browser
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

# The pages that equiscope makes are opened in a real Chromium; where apt-get is allowed it is installed.
.PHONY: browser package
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } || \
	echo "no Chromium here: the tests that open pages in it will be skipped, and say so"

# Wheel and sdist, each installed in a clean environment and used there.
package: $(INSTALLED)
	$(BIN)/python scripts/check_package.py

# The documentation site, in build/docs.
.PHONY: docs
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "documentation: build/docs/index.html"

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks scripts examples docs
	$(BIN)/mypy

.PHONY: planted thorough
# Every planted bug must be caught by the tests named for it (minutes); the table goes to benchmarks/results.
planted: $(INSTALLED)
	$(BIN)/python -m tests.planted.run

# More than ten thousand generated batches (minutes).
thorough: $(INSTALLED)
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest tests/decomposition/test_properties.py --timeout=3600

clean:
	rm -rf .venv build dist

.PHONY: benchmark datasets pretrained
RUN ?= runs/forcefield/demo

# Estimators side by side on the demo's trained model, about 20 minutes; then curvature beside its peers.
benchmark: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/estimators.py $(RUN)
	$(MAKE) curvature-peers

.PHONY: curvature-peers
# Curvature beside curvlinops and hessian-eigenthings, in an environment of its own (five minutes). Without their
# dependencies: those bring torchvision, which breaks the rest.
curvature-peers:
	$(PYTHON) -m venv .venv-curvature
	.venv-curvature/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-curvature/bin/pip install --quiet --no-deps -r benchmarks/curvature.txt
	.venv-curvature/bin/pip install --quiet -c constraints.txt -e '.[ase,train]'
	OMP_NUM_THREADS=1 .venv-curvature/bin/python benchmarks/curvature_peers.py $(RUN)

.PHONY: brute
# The parts of the loss by 100,000 rotations beside what is reported, on trained models RUN; the records of the runs
# keep it, and `equiscope report --paper` decides by it.
brute: $(INSTALLED)
	for run in $(RUN); do OMP_NUM_THREADS=1 $(BIN)/equiscope analyse $$run brute || exit 1; done

.PHONY: agreement
# Brute force, e3nn's own test, and the gain predicted from a spectrum, on trained models (about ten minutes a run).
agreement: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/agreement.py $(RUN)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/predicted_gain.py $(RUN)

.PHONY: coverage
# How often the intervals hold the truth, by simulation (minutes on one core).
coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

.PHONY: designs scaling
RUNS ?= $(RUN)
# Designs of rotations on several trained models, which is why the default is what it is (minutes a model).
designs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/designs.py $(RUNS)

# What the measure costs beside a training, at the paper's sizes (about half an hour and 9 GB).
scaling: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py

.PHONY: gpu gpu-page paper-scale-proof
# On a machine with a card, about five minutes: tests, overheads of the measure, step times, one short run of each task.
# BEFORE=CHECKOUT times the steps beside those of another commit. Says so in a line where there is no card.
gpu: $(INSTALLED)
	@$(BIN)/python scripts/gpu.py $(if $(BEFORE),--before $(BEFORE))

# The page of what ran on a GPU, from the records in benchmarks/results/gpu.
gpu-page: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_page.py

# The study paper_scale at toy sizes on the processor: stopped at its budget, killed, gone on with (about ten minutes).
paper-scale-proof: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/runs/test_paper_scale.py --timeout=1800

# A million synthetic frames in SPICE's layout: memory and speed of reading, converting and drawing batches (minutes).
datasets: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/datasets.py

# Real pretrained networks, each in an environment of its own since their pins clash with ours and each other's.
pretrained: .venv-voxels/.installed
	$(PYTHON) -m venv .venv-potentials
	.venv-potentials/bin/pip install --quiet torch==2.13.0
	.venv-potentials/bin/pip install --quiet -c examples/pretrained/potentials.txt sevenn chgnet -e '.[ase]'
	OMP_NUM_THREADS=1 .venv-potentials/bin/python examples/pretrained/potentials.py benchmarks/results/pretrained_potentials.json
	OMP_NUM_THREADS=1 .venv-voxels/bin/python examples/pretrained/voxel_network.py benchmarks/results/pretrained_voxels.json

.venv-voxels/.installed: examples/pretrained/voxels.txt
	$(PYTHON) -m venv .venv-voxels
	.venv-voxels/bin/pip install --quiet torch==2.13.0 'numpy<2'
	.venv-voxels/bin/pip install --quiet --no-deps -r examples/pretrained/voxels.txt
	.venv-voxels/bin/pip install --quiet 'numpy<2' rdkit pytest pandas pytorch-ignite scikit-learn matplotlib -e '.[ase]'
	touch $@

.PHONY: atlas
# torch-sim and Orb need Python 3.12 or later: PATH's, or one that pyenv has.
PYTHON312 ?= $(firstword $(shell command -v python3.13 python3.12 2>/dev/null | grep -v shims) \
	$(wildcard $(HOME)/.pyenv/versions/3.1[23]*/bin/python3) python3.12)
# How symmetric the models are that people run: docs/atlas.md (about 0.7 GB of packages, and 6 GB for Orb; half an hour
# on one core). MACE pins another e3nn and is installed without its dependencies; RUNS are trained models of this
# package, RUN@0 the same before training.
atlas: .venv-voxels/.installed
	$(PYTHON) -m venv .venv-atlas
	.venv-atlas/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-atlas/bin/pip install --quiet -c constraints.txt -r benchmarks/atlas.txt -e '.[ase,train,peers]'
	.venv-atlas/bin/pip install --quiet --no-deps -r benchmarks/atlas_alone.txt
	OMP_NUM_THREADS=1 .venv-atlas/bin/python benchmarks/atlas.py measure SevenNet CHGNet PocketNet MACE TorchMD NequIP ESCAIP
	OMP_NUM_THREADS=1 .venv-voxels/bin/python benchmarks/atlas.py measure GNINA
	$(PYTHON312) -m venv .venv-orb
	.venv-orb/bin/pip install --quiet torch==2.13.0 orb-models==0.7.0 -e '.[ase]'
	OMP_NUM_THREADS=1 .venv-orb/bin/python benchmarks/atlas.py measure Orb
	OMP_NUM_THREADS=1 .venv-atlas/bin/python benchmarks/atlas.py trained $(RUNS)
	.venv-atlas/bin/python benchmarks/atlas.py page

.PHONY: metatomic
# metatomic's symmetrised calculator and ours on one ASE calculator, an error that its grid does not see, and a planted
# one in SevenNet's forces, in an environment of its own (ten minutes).
metatomic:
	$(PYTHON) -m venv .venv-metatomic
	.venv-metatomic/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-metatomic/bin/pip install --quiet -c constraints.txt -r benchmarks/metatomic.txt -e '.[metatomic,train]'
	OMP_NUM_THREADS=1 .venv-metatomic/bin/python benchmarks/symmetrised_calculator.py $(RUN)
	OMP_NUM_THREADS=1 .venv-metatomic/bin/python benchmarks/degree4.py
	OMP_NUM_THREADS=1 .venv-metatomic/bin/python benchmarks/bent_sevennet.py metatomic

.PHONY: pet torch-sim
# PET trained on generated molecules with metatrain, then measured, and the tests of model=pet, in an environment of its
# own (ten minutes).
pet:
	$(PYTHON) -m venv .venv-pet
	.venv-pet/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-pet/bin/pip install --quiet -c constraints.txt -r examples/metatrain/pet.txt -e '.[metatomic,train]' pytest pytest-timeout
	OMP_NUM_THREADS=1 .venv-pet/bin/python examples/metatrain/pet.py benchmarks/results/pet.md
	OMP_NUM_THREADS=1 .venv-pet/bin/python -m pytest tests/tasks/forcefield/test_pet_field.py

# The doors' tests beside the real torch-sim and SevenNet, and a planted error in SevenNet's forces, on Python 3.12 or
# later (pip brings torch for CUDA there, 6 GB; five minutes after that).
torch-sim:
	$(PYTHON312) -m venv .venv-torch-sim
	.venv-torch-sim/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-torch-sim/bin/pip install --quiet -c constraints.txt -e '.[torch-sim]' sevenn==0.13.0 pytest pytest-timeout
	OMP_NUM_THREADS=1 .venv-torch-sim/bin/python -m pytest tests/adapters/test_torch_sim.py tests/adapters/test_routes.py
	OMP_NUM_THREADS=1 .venv-torch-sim/bin/python benchmarks/bent_sevennet.py torch-sim

.PHONY: faults
# Kills, a full disk, flipped bits and cut files at full count (minutes); the table goes to benchmarks/results.
faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.run

.PHONY: curvature
# Cost of the largest eigenvalues of a 1M force field on the demo's data (minutes on two quiet cores).
curvature: $(INSTALLED)
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/curvature.py $(RUN) --threads 2
