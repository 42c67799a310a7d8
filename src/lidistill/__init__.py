"""lidistill: LiDAR 3D detectors made small and fast by knowledge distillation."""
