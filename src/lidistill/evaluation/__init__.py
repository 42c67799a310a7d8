"""What all protocols share: predictions, scores, intervals and verdicts. Knows no detector and no dataset."""
