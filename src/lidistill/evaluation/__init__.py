"""What all protocols share: predictions, scores and their layout, intervals and verdicts. Independent of detectors and
datasets.
"""
