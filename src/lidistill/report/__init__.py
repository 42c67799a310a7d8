"""Reports from run folders: tables, curves and pictures on one page. Imports no model, detector or dataset."""

from lidistill.report.bev import draw_bev

__all__ = ["draw_bev"]
