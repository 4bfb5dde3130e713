"""Figures and one HTML page of a run, from its records alone; several runs on the same axes or against the paper."""

from equiscope.report.beside import beside
from equiscope.report.page import build
from equiscope.report.paper import build_paper

__all__ = ["beside", "build", "build_paper"]
