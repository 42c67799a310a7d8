"""After a dozen steps a detector predicts by statistics of its frames, not by those it was built with."""

from __future__ import annotations

import torch

from lidistill import jobs
from lidistill.ops.box_codes import MAX_SIZE_RATIO
from lidistill.types import collate


@torch.no_grad()
def test_evaluation_sees_what_training_saw(journey):
    run = jobs.load_run(journey.teacher)
    source, detector = run.experiment.data.open("train"), run.detector
    batch = collate([source[row] for row in range(len(source))])
    evaluated = detector.eval()(batch)
    trained = detector.train()(batch)
    for name in ("bev.0", "bev.2", "neck"):
        wanted = trained.taps[name].features
        assert (evaluated.taps[name].features - wanted).norm() < 0.3 * wanted.norm(), name
    largest = max(max(anchor.size) for anchor in run.experiment.detector.head.anchors)
    assert all((boxes.geometry[:, 3:6] <= MAX_SIZE_RATIO * largest).all() for boxes in detector.decode(evaluated))
