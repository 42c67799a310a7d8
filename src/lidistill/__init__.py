"""lidistill: LiDAR 3D detectors made small and fast by knowledge distillation."""

__version__ = "0.1.0"
