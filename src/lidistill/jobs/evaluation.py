"""Score a run, or predictions made elsewhere. Predictions are saved before they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lidistill.data.augment import centred_within, within_range
from lidistill.data.source import DataSettings, FrameSource, MissingSplit
from lidistill.datasets import protocol_of
from lidistill.deploy.profile import device_name, profile
from lidistill.detectors.detector import count_parameters
from lidistill.errors import shown
from lidistill.evaluation.predict import Predictions, predict
from lidistill.evaluation.protocol import Resamplable
from lidistill.evaluation.scores import Scores
from lidistill.experiment import Experiment, check_labels
from lidistill.jobs.devices import pick_device, pick_precision
from lidistill.jobs.provenance import commit, recorded_data
from lidistill.jobs.trained_runs import load_run
from lidistill.parsing import read_json
from lidistill.progress import progress
from lidistill.reading import is_file, is_folder
from lidistill.report.measures.samples import save_samples
from lidistill.run_folder import VALIDATION, RunFolder, write_json
from lidistill.settings import Range
from lidistill.types import Boxes, DatasetSpec, Frame, InputError

PICTURED_FRAMES = 6
PROFILED_FRAMES = 12
RANGE_FRAMES = 4  # read before all others, to see whether the detector's range fits


def evaluate(
    run: str | Path,
    *,
    data: DataSettings | None = None,
    split: str = VALIDATION,
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "32",
) -> Scores:
    """Predict on a split and score, with the network in `precision` (one of PRECISIONS).

    Without `data` the split is of the run's own dataset. For the validation split, predictions, matches, scores,
    profile and sample frames are written into the run's folder; for another split, predictions, matches and scores go
    into a folder of its name there. So reports always compare validation splits.

    With `data` the split is of that dataset, which must have the classes and point features that the detector was
    trained on. Predictions, matches and scores go into `out`, by default the folder NAME-SPLIT in the run's folder. The
    scores also record what the run was trained on, how many labelled objects lie within the detector's range, and the
    fingerprint of the frames. InputError if no point lies within the range, or if the folder holds scores on other
    frames.
    """
    loaded = load_run(run)
    experiment = loaded.experiment
    where = pick_device(device)
    ran = pick_precision(precision, where, "--precision")
    own = data is None
    fingerprint = ""
    if data is None:
        data, folder = experiment.data, loaded.folder.of_split(split)
        source = _opened(data, split)
    else:
        data = data.with_classes(experiment.detector.classes)
        check_labels(experiment.detector, data.spec, "run")
        folder = RunFolder(Path(out)) if out is not None else loaded.folder.of_split(f"{data.name}-{split}")
        source = _opened(data, split)
        _check_range(loaded.folder.path, experiment.detector.point_range, source)
        fingerprint = source.fingerprint()
        _check_replaced(folder, fingerprint)
    detector = loaded.detector.to(where).for_inference()
    with progress(f"predict {loaded.folder.name}", len(source)) as advance:
        predictions = predict(
            detector, source, device=where, batch_size=experiment.training.batch_size, progress=advance, precision=ran
        )
    spec = source.spec
    replace(predictions, dataset=spec.name, dataset_version=spec.version).save(folder.predictions)
    labelled: list[Boxes] = []
    scores, matches = score_frames(source.spec, predictions, _boxes_kept(source, labelled))
    matches.save(folder.matches)
    if own and split == VALIDATION:
        pictured = [source[row] for row in spread(len(source), PICTURED_FRAMES)]
        save_samples(folder.samples, pictured, source.spec.classes, experiment.detector.point_range)
        cost = profile(
            detector, [source[row] for row in range(min(PROFILED_FRAMES, len(source)))], device=where, precision=ran
        )
        write_json(folder.profile, replace(cost, parameters=count_parameters(loaded.detector)).to_dict())
    trained_on = recorded_data(loaded.folder)
    version = {"trained_on_version": trained_on["version"]} if trained_on.get("version") else {}
    origin = {} if own else _training_data(trained_on, experiment, labelled)
    write_json(
        folder.scores,
        {
            **labels(data, source, split),
            **version,
            **origin,
            **({"frames_fingerprint": fingerprint} if fingerprint else {}),
            "role": experiment.role,
            "name": loaded.folder.name,
            "seed": experiment.seed,
            "commit": commit(),
            "device": device_name(where),
            "precision": ran,
            **scores.to_dict(),
        },
    )
    if origin:
        print(
            f"{loaded.folder.name} was trained on {origin['trained_on']}; {origin['objects_in_range']} of "
            f"{origin['objects']} labelled objects lie within its range; written to {folder.path}"
        )
    return scores


def _opened(data: DataSettings, split: str) -> FrameSource:
    """Open a split. If it is missing, the error proposes another --split, because no override can change `data`."""
    try:
        return data.open(split)
    except MissingSplit as error:
        raise InputError(error.with_option) from None


def _check_range(run: Path, point_range: Range, source: FrameSource) -> None:
    """Raise InputError if the detector's range holds no point of any of a few frames, or if these have no labels."""
    if not len(source):
        raise InputError(f"{run}: the split has no frame of {source.spec.name} to score on; choose another one")
    frames = [source[row] for row in spread(len(source), RANGE_FRAMES)]
    if frames[0].boxes is None:
        raise InputError(f"{run}: frame {frames[0].id} has no labels to score on; choose a split that has them")
    if not any(len(within_range(frame, point_range).points) for frame in frames):
        raise InputError(
            f"{run}: the detector's range {[*point_range]} holds no point of {source.spec.name}'s frames; points "
            "must be metres from the LiDAR, with x forward, y left and z up"
        )


def _check_replaced(folder: RunFolder, fingerprint: str) -> None:
    """Raise InputError if `folder` holds scores on other frames than those of `fingerprint`."""
    if not is_file(folder.scores):
        return
    remedy = f"give another folder with --out, or delete {folder.scores} to replace its scores"
    found = read_json(folder.scores, remedy).get("frames_fingerprint")
    if found is None:
        raise InputError(f"{folder.path}: holds scores that do not record their frames; {remedy}")
    if found != fingerprint:
        raise InputError(f"{folder.path}: holds scores on other frames, or on these before they changed; {remedy}")


def _boxes_kept(source: FrameSource, kept: list[Boxes]) -> Iterator[Frame]:
    """The frames of `source`; the labelled boxes of each that was read are added to `kept`."""
    for frame in source:
        if frame.boxes is not None:
            kept.append(frame.boxes)
        yield frame


def _training_data(trained_on: Mapping[str, Any], experiment: Experiment, labelled: Sequence[Boxes]) -> dict[str, Any]:
    """What a run was trained on, and how many of the labelled objects lie within its detector's range."""
    return {
        "trained_on": trained_on.get("name", experiment.data.name),
        "trained_on_simulated": trained_on.get("simulated", experiment.data.spec.simulated),
        "objects": sum(map(len, labelled)),
        "objects_in_range": sum(int(centred_within(b, experiment.detector.point_range).sum()) for b in labelled),
    }


def evaluate_predictions(
    path: str | Path, data: DataSettings, *, split: str = VALIDATION, out: str | Path | None = None
) -> Scores:
    """Score predictions made elsewhere: a `predictions.npz`, or files of other tools that the dataset's protocol reads.

    Scores and matches are written to the folder `out`, if given. InputError if `path` does not exist, or if its
    predictions were made on another dataset, or on another version of its frames.
    """
    path = Path(path)
    source = _opened(data, split)
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
    """Load the predictions of a file; InputError if it names a dataset, or a version of one, other than `spec`."""
    predictions = Predictions.load(path)
    if predictions.dataset not in ("", spec.name):
        raise InputError(
            f"{path}: holds predictions on {shown(predictions.dataset)}, not on {spec.name}; set --data to the "
            "dataset that they were made on"
        )
    if predictions.dataset and predictions.dataset_version != spec.version:
        made, given = (
            shown(version) if version else "no recorded version"
            for version in (predictions.dataset_version, spec.version)
        )
        raise InputError(
            f"{path}: holds predictions on frames of {made}, and those of --data are of {given}; set --data to the "
            "frames that they were made on, or predict again with `lidistill evaluate RUN`"
        )
    return predictions


def score_frames(spec: DatasetSpec, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, Resamplable]:
    """Return the scores by the dataset's own protocol, and the matches whose frames can be resampled for intervals."""
    scores, matches = protocol_of(spec).evaluate(predictions, frames)
    return replace(scores, simulated=spec.simulated), matches


def labels(data: DataSettings, source: FrameSource, split: str) -> dict[str, Any]:
    """Return the facts about the data that are written beside every score."""
    spec = source.spec
    return {
        "dataset": spec.name,
        **({"dataset_title": data.title} if data.title else {}),
        "simulated": spec.simulated,
        **({"dataset_version": spec.version} if spec.version else {}),
        "split": split,
        "frames": len(source),
    }


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` evenly spaced rows of `count`; all rows if `wanted` is 0."""
    if not wanted or wanted >= count:
        return list(range(count))
    return [row * count // wanted for row in range(wanted)]
