"""The report stage: what the run says, and how far it can be trusted."""

from unveil.report.findings import ReportOptions
from unveil.report.page import FIGURES, render

__all__ = ["FIGURES", "ReportOptions", "render"]
