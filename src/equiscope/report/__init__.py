"""Figures and one HTML page of a run, from its records alone."""

from equiscope.report.page import build

__all__ = ["build"]
