"""Figures and one HTML page of a run, from its records alone; several runs on the same axes or against the paper."""

from equiscope.report.claims_page import build_paper
from equiscope.report.figures import beside
from equiscope.report.page import build

__all__ = ["beside", "build", "build_paper"]
