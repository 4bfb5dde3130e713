"""Checks that users run from pytest on their own model, and models whose equivariance error is known in closed form.

    from equiscope import testing

    def test_my_model():
        testing.assert_equivariant(model, batches, declaration)
        testing.assert_declared_symmetry_complete(model, batches, declaration)
        testing.assert_permutation_equivariant(model, batches, declaration)
        testing.assert_padding_ignored(model, batches, declaration)
        testing.assert_deterministic(model, batches, declaration)

Labels are never needed. A failed check is an AssertionError whose message is the report; a check that cannot be made
(a missing field, a wrong shape) is an error of :mod:`equiscope.errors`.
"""

from equiscope.testing.completeness import Completeness, Trial, assert_declared_symmetry_complete
from equiscope.testing.controls import ConstantVector, LinearMap
from equiscope.testing.equivariance import EquivarianceReport, OutputReport, assert_equivariant
from equiscope.testing.invariances import assert_deterministic, assert_padding_ignored, assert_permutation_equivariant
from equiscope.testing.readings import reread

__all__ = [
    "Completeness",
    "ConstantVector",
    "EquivarianceReport",
    "LinearMap",
    "OutputReport",
    "Trial",
    "assert_declared_symmetry_complete",
    "assert_deterministic",
    "assert_equivariant",
    "assert_padding_ignored",
    "assert_permutation_equivariant",
    "reread",
]
