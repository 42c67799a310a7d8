"""Simulated streets, kept in KITTI's layout and scored by KITTI's metric."""
