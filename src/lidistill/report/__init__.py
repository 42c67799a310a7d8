"""Reports from run folders: tables, curves and pictures on one page. Imports no model, detector or dataset."""

from lidistill.report.bev import draw_bev
from lidistill.report.page import write_report
from lidistill.report.samples import load_samples, save_samples

__all__ = ["draw_bev", "load_samples", "save_samples", "write_report"]
