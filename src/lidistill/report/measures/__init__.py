"""Runs, gains and times, read from run folders, and tables of them."""
