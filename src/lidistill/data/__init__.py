"""Datasets as frames in LiDAR axes, and what training does to them."""
