"""The KITTI object benchmark: its files, frames, difficulty rules and official metric."""
