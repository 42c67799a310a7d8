"""Suppression in its plainest form: look at every better box that was kept."""


def kept_rows(boxes, scores, threshold, overlap, max_before=None, max_after=None):
    ranked = sorted(range(len(boxes)), key=lambda row: (-float(scores[row]), row))[:max_before]
    kept = []
    for row in ranked:
        if all(overlap(boxes[better], boxes[row]) <= threshold for better in kept):
            kept.append(row)
    return kept[:max_after]
