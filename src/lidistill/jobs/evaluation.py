"""Score a run, or predictions made elsewhere. Predictions are saved before they are scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lidistill.data.source import DataSettings, FrameSource
from lidistill.datasets import protocol_of
from lidistill.deploy.profile import device_name, profile
from lidistill.detectors.detector import count_parameters
from lidistill.errors import shown
from lidistill.evaluation.predict import Predictions, predict
from lidistill.evaluation.protocol import Resamplable
from lidistill.evaluation.scores import Scores
from lidistill.jobs.devices import pick_device, pick_precision
from lidistill.jobs.provenance import commit
from lidistill.jobs.trained_runs import load_run
from lidistill.progress import progress
from lidistill.reading import is_file, is_folder
from lidistill.report.measures.samples import save_samples
from lidistill.run_folder import VALIDATION, RunFolder, write_json
from lidistill.types import DatasetSpec, Frame, InputError

PICTURED_FRAMES = 6
PROFILED_FRAMES = 12


def evaluate(run: str | Path, *, split: str = VALIDATION, device: str = "auto", precision: str = "32") -> Scores:
    """Predict on a split of the run's own dataset and score, the network in `precision` (one of PRECISIONS).

    Of the validation split, predictions, matches, scores, profile and sample frames are written into the folder; of
    another split, predictions, matches and scores into a folder of its name there. So what reports compare is always of
    the validation split.
    """
    loaded = load_run(run)
    experiment = loaded.experiment
    folder = loaded.folder.of_split(split)
    where = pick_device(device)
    ran = pick_precision(precision, where, "--precision")
    source = experiment.data.open(split)
    detector = loaded.detector.to(where).for_inference()
    with progress(f"predict {loaded.folder.name}", len(source)) as advance:
        predictions = predict(
            detector, source, device=where, batch_size=experiment.training.batch_size, progress=advance, precision=ran
        )
    replace(predictions, dataset=source.spec.name).save(folder.predictions)
    scores, matches = score_frames(source.spec, predictions, source)
    matches.save(folder.matches)
    if split == VALIDATION:
        pictured = [source[row] for row in spread(len(source), PICTURED_FRAMES)]
        save_samples(folder.samples, pictured, source.spec.classes, experiment.detector.point_range)
        cost = profile(
            detector, [source[row] for row in range(min(PROFILED_FRAMES, len(source)))], device=where, precision=ran
        )
        write_json(folder.profile, replace(cost, parameters=count_parameters(loaded.detector)).to_dict())
    write_json(
        folder.scores,
        {
            **labels(experiment.data, source, split),
            "role": experiment.role,
            "name": loaded.folder.name,
            "seed": experiment.seed,
            "commit": commit(),
            "device": device_name(where),
            "precision": ran,
            **scores.to_dict(),
        },
    )
    return scores


def evaluate_predictions(
    path: str | Path, data: DataSettings, *, split: str = VALIDATION, out: str | Path | None = None
) -> Scores:
    """Score predictions made elsewhere: a `predictions.npz`, or what the dataset's protocol reads of other tools.

    `out` is a folder for scores and matches. InputError where the predictions are of another dataset.
    """
    path = Path(path)
    source = data.open(split)
    protocol = protocol_of(source.spec)
    if is_file(path) and path.suffix == ".npz":
        scores, matches = score_frames(source.spec, _predictions_of(source.spec, path), source)
    elif is_file(path) or is_folder(path):
        scores, matches = protocol.evaluate_foreign(path, source.spec.classes, source)
        scores = replace(scores, simulated=source.spec.simulated)
    else:
        raise InputError(f"{path}: no such file or folder; give {protocol.accepted_forms}")
    if out is not None:
        folder = RunFolder(Path(out))
        matches.save(folder.matches)
        write_json(
            folder.scores, {**labels(data, source, split), "role": "elsewhere", "name": path.name, **scores.to_dict()}
        )
    return scores


def _predictions_of(spec: DatasetSpec, path: Path) -> Predictions:
    """The predictions in a file, unless it says that they are of another dataset."""
    predictions = Predictions.load(path)
    if predictions.dataset not in ("", spec.name):
        raise InputError(
            f"{path}: holds predictions on {shown(predictions.dataset)}, not on {spec.name}; give --data of the "
            "dataset that was predicted"
        )
    return predictions


def score_frames(spec: DatasetSpec, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, Resamplable]:
    """Scores by the dataset's own protocol, and what resamples its frames."""
    scores, matches = protocol_of(spec).evaluate(predictions, frames)
    return replace(scores, simulated=spec.simulated), matches


def labels(data: DataSettings, source: FrameSource, split: str) -> dict[str, Any]:
    """What every published figure carries about its data."""
    spec = source.spec
    return {
        "dataset": spec.name,
        **({"dataset_title": data.title} if data.title else {}),
        "simulated": spec.simulated,
        "split": split,
        "frames": len(source),
    }


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` rows of `count`, evenly apart; all of them where `wanted` is 0."""
    if not wanted or wanted >= count:
        return list(range(count))
    return [row * count // wanted for row in range(wanted)]
