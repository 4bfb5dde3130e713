"""Figures and one HTML page of a run, from its records alone; several runs on the same axes."""

from equiscope.report.beside import beside
from equiscope.report.page import build

__all__ = ["beside", "build"]
