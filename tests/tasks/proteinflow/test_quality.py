"""Tests of the figures by which drawn chains are judged."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from equiscope.errors import InputError
from equiscope.tasks.datasets.protein_chains import shipped_chains
from equiscope.tasks.proteinflow.quality import (
    RealChains,
    clash_share,
    dihedrals,
    judge,
    radius_of_gyration,
    step_lengths,
)
from equiscope.tasks.proteinflow.sample_run import plot_quality, plot_traces
from tests.tasks.datasets.test_protein_chains import helix


@pytest.fixture(scope="module")
def real() -> RealChains:
    return RealChains.of(shipped_chains().ca[:300])


def test_radius_of_gyration_of_a_rod_is_its_length_over_root_twelve():
    rod = np.outer(np.linspace(0, 100, 20001), [0.6, 0.0, 0.8])
    assert radius_of_gyration(rod) == pytest.approx(100 / np.sqrt(12), rel=1e-4)


def test_steps_of_an_ideal_helix():
    step = np.sqrt((2 * 2.3 * np.sin(np.deg2rad(50))) ** 2 + 1.5**2)
    assert np.allclose(step_lengths([helix(30), helix(40)]), step)
    assert len(step_lengths([helix(30), helix(40)])) == 68


def test_dihedrals_have_the_sign_of_the_hand_and_known_values():
    turns = dihedrals(helix(30))
    assert len(turns) == 27
    assert np.allclose(turns, turns[0])
    assert 45 < turns[0] < 55
    assert np.allclose(dihedrals(helix(30) * [1, 1, -1]), -turns)
    # Four points in a plane, zigzag and bow: 180° and 0°.
    zigzag = np.array([[0, 0, 0], [1, 1, 0], [2, 0, 0], [3, 1, 0]], float)
    assert abs(dihedrals(zigzag)[0]) == pytest.approx(180)
    bow = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]], float)
    assert dihedrals(bow)[0] == pytest.approx(0, abs=1e-9)
    quarter = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]], float)
    # Looking along the middle bond the far one is turned clockwise from y to z: +90° by the IUPAC rule.
    assert dihedrals(quarter)[0] == pytest.approx(90)


def test_clashes_are_between_residues_three_or_more_apart():
    straight = np.outer(np.arange(10) * 3.8, [1.0, 0, 0])
    assert clash_share([straight]) == 0
    folded = straight.copy()
    folded[9] = straight[2] + [0, 3.0, 0]
    assert clash_share([folded]) == pytest.approx(2 / 10)
    # Second neighbours may be near: no clash.
    near = straight.copy()
    near[5] = near[3] + [0, 3.0, 0]
    assert clash_share([near[:6]]) == 0


def test_real_chains_are_what_proteins_are(real):
    own = real.quality()
    assert own.step_mean == pytest.approx(3.80, abs=0.02)
    assert own.step_share > 0.98
    assert own.step_distance < 0.01
    assert own.clash_share < 0.01
    assert own.right_turns > 0.25
    assert own.right_turns > 5 * own.left_turns
    # Compact chains have 1/3; the short stretches among these are less compact, which lowers it.
    assert 0.1 < real.exponent < 0.5
    assert own.gyration_mean == pytest.approx(own.gyration_real, rel=0.05)


def test_the_power_law_is_recovered_and_its_exponent_may_come_from_more_chains():
    rods = [np.outer(np.linspace(-1, 1, n), [1.0, 0, 0]) * n**0.7 for n in (400, 800, 1600)]
    fitted = RealChains.of(rods)
    assert fitted.exponent == pytest.approx(0.7, abs=2e-3)
    assert fitted.gyration(800) == pytest.approx(radius_of_gyration(rods[1]), rel=1e-3)
    twice = RealChains.of([2 * rods[0], 2 * rods[0]], trend=rods)
    assert twice.exponent == pytest.approx(fitted.exponent)
    assert twice.gyration(400) == pytest.approx(2 * radius_of_gyration(rods[0]))


def test_random_walks_and_mirror_images_are_told_from_proteins(real):
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(90, 3)) * 3.5, axis=0) for _ in range(20)]
    bad = judge(walks, real)
    assert bad.step_share < 0.3
    assert bad.step_distance > 0.5
    assert bad.clash_share > 0.1
    assert bad.gyration_mean > 1.2 * bad.gyration_real
    mirrored = judge([ca * [1, 1, -1] for ca in real.traces], real)
    assert mirrored.left_turns == pytest.approx(real.quality().right_turns)
    assert mirrored.step_distance == pytest.approx(0, abs=1e-9)


def test_figures_are_plain_and_readable(real):
    figures = judge(real.traces[:4], real)
    assert json.loads(json.dumps(asdict(figures)))["chains"] == 4
    assert "4 chains" in str(figures)
    with pytest.raises(InputError, match="no trace"):
        judge([], real)
    with pytest.raises(InputError, match="two real chains"):
        RealChains.of(real.traces[:1])


def test_plots_are_written(tmp_path, real):
    plot_quality({"drawn": real.traces[:3]}, real, tmp_path / "q.png")
    plot_traces(real.traces[:5], tmp_path / "t.png")
    plot_traces(real.traces[:1], tmp_path / "one.png")
    for name in ("q", "t", "one"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
