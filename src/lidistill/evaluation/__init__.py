"""What all protocols share: predictions, scores and their layout, intervals and verdicts. Knows no detector and no
dataset.
"""
