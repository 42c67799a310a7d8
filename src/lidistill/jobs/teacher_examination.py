"""Checks a teacher before distillation: it is scored on the student's own validation frames."""

from __future__ import annotations

from lidistill.data.source import FrameSource
from lidistill.datasets import protocol_of
from lidistill.distillation.certificate import certify
from lidistill.evaluation.predict import predict
from lidistill.experiment import Distillation, Experiment
from lidistill.jobs.devices import pick_device
from lidistill.jobs.evaluation import score_frames, spread
from lidistill.jobs.trained_runs import TrainedRun
from lidistill.run_folder import RunFolder, write_json
from lidistill.types import InputError


def examine_teacher(
    teacher: TrainedRun,
    experiment: Experiment,
    distillation: Distillation,
    folder: RunFolder,
    validation: FrameSource,
    device: str,
) -> None:
    """Score the teacher on the student's own validation frames, and write `certificate.json` into `folder`.

    Unlabelled frames are left out. InputError if a check fails.
    """
    frames = [
        frame
        for row in spread(len(validation), experiment.training.validation_frames)
        if (frame := validation[row]).boxes is not None
    ]
    where = pick_device(device)
    detector = teacher.detector.to(where)
    predictions = predict(detector.for_inference(), frames, device=where, batch_size=experiment.training.batch_size)
    protocol = protocol_of(validation.spec)
    scores, _ = score_frames(validation.spec, predictions, frames)
    findings = certify(
        scores=scores.values,
        main=scores.main,
        limit=protocol.worst_teacher if distillation.minimum_score is None else distillation.minimum_score,
        unit=scores.scale.unit,
        higher_is_better=scores.scale.higher_is_better,
        teacher_classes=teacher.experiment.detector.classes,
        dataset_classes=validation.spec.classes,
        detections=predictions.boxes,
        truths=[frame.boxes for frame in frames if frame.boxes is not None],
        state=detector.state_dict(),
        missing_keys=(),  # load_run accounts for every key
        unexpected_keys=(),
        teacher_bn=distillation.teacher_bn,
    )
    write_json(folder.certificate, {"teacher": str(teacher.folder.path), "frames": len(frames), **findings.to_dict()})
    if not findings.passed:
        raise InputError(
            f"{teacher.folder.path}: refused as a teacher: {findings.sentence()}; correct it, or skip "
            "this check with --no-certificate"
        )
