"""Run folders as rows of a report: read, ordered, named, and refused if they cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidistill.evaluation.protocol import Protocol
from lidistill.evaluation.scores import Scores
from lidistill.report.palette import Colour, colours_of
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import InputError

TITLES = {"teacher": "Teacher", "plain": "Plain student", "distilled": "Distilled student"}

# Keys of scores.json that must agree before two runs are printed in one table, and their names in messages.
CONDITIONS = {
    "dataset": "the dataset",
    "dataset_version": "the version of the dataset",
    "trained_on_version": "the version of the training frames",
    "split": "the split",
    "protocol": "the metric",
    "main": "the headline score",
    "overlap": "the overlap limits",
    "scale": "the scale of the scores",
    "frames": "the number of frames",
}
_FIGURES = ("values", "curves", "counts", "layout")


@dataclass(frozen=True)
class Run:
    """The contents of one run folder. The contents of a missing file are None."""

    folder: RunFolder
    label: str  # unique within the report
    role: str
    colour: Colour
    experiment: Mapping[str, Any]
    conditions: Mapping[str, Any]  # of scores.json: dataset, split, frames, seed, commit, device, ...
    scores: Scores | None
    protocol: Protocol | None  # that scored the run; None if it is unscored or the protocol is unknown here
    cost: Mapping[str, Any] | None  # profile.json
    log: Sequence[Mapping[str, Any]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the distillation methods."""
        listed = self.setting("distillation", "methods")
        return (
            tuple(str(method.get("name")) for method in listed if isinstance(method, Mapping))
            if isinstance(listed, list)
            else ()
        )

    @property
    def seed(self) -> Any:
        return self.setting("seed")

    def setting(self, *path: str) -> Any:
        """The value under nested keys in `experiment.yaml`; None if there is no such setting."""
        value: Any = self.experiment
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def value(self, key: str) -> float | None:
        """A score in its unit; None if it was not measured."""
        return None if self.scores is None else self.scores.values.get(key)

    @property
    def parameters(self) -> Any:
        return None if self.cost is None else self.cost.get("parameters")

    @property
    def macs(self) -> Any:
        return None if self.cost is None else self.cost.get("macs")


def read_runs(paths: Sequence[str | Path], protocols: Mapping[str, Protocol]) -> list[Run]:
    """Read runs and return them in report order: teachers, plain students, distilled students, others; within a role as
    given.

    `protocols` read `matches.npz` for intervals; a run of another protocol has no intervals. InputError if a folder is
    not a run, is given twice, or was scored under other conditions than another one.
    """
    if not paths:
        raise InputError(
            "report: no run folders given; name at least one, for example runs/teacher runs/plain runs/student"
        )
    folders = [RunFolder(Path(path)) for path in paths]
    resolved = [folder.path.resolve() for folder in folders]
    for row, path in enumerate(resolved):
        if path in resolved[:row]:
            raise InputError(f"{folders[row].path} is given twice; name each run folder once")
    experiments = [folder.read_experiment() for folder in folders]
    roles = [str(experiment.get("role", "other")) for experiment in experiments]
    order = sorted(range(len(folders)), key=lambda row: _rank(roles[row]))
    labels = dict(
        zip(order, _labels([folders[row] for row in order], [experiments[row] for row in order]), strict=True)
    )
    colours = dict(zip(order, colours_of([roles[row] for row in order]), strict=True))
    runs = []
    for row in order:
        folder = folders[row]
        content = read_json(folder.scores) if folder.scores.is_file() else {}
        scores = None
        if folder.scores.is_file():
            scores = Scores.from_dict(content, str(folder.scores), f"run `lidistill evaluate {folder.path}` again")
        runs.append(
            Run(
                folder=folder,
                label=labels[row],
                role=roles[row],
                colour=colours[row],
                experiment=experiments[row],
                conditions={key: value for key, value in content.items() if key not in _FIGURES},
                scores=scores,
                protocol=None if scores is None else protocols.get(scores.protocol),
                cost=read_json(folder.profile) if folder.profile.is_file() else None,
                log=folder.read_log(),
            )
        )
    _check_side_by_side(runs)
    return runs


def first_scores(runs: Sequence[Run]) -> Scores | None:
    """The scores of the first run that has any. Its headline score, scale and layout hold for all runs of a report."""
    return next((run.scores for run in runs if run.scores is not None), None)


def is_simulated(runs: Sequence[Run]) -> bool:
    """Whether the runs were trained or scored on simulated data.

    A dataset whose name starts with "simulated" counts, too, even if its folder does not say so.
    """
    return any(_simulated(run) for run in runs)


def simulated_note(runs: Sequence[Run]) -> str:
    """Last words of a table's caption if its results are on simulated data; else empty."""
    return "; simulated data" if is_simulated(runs) else ""


def _simulated(run: Run) -> bool:
    names = (run.conditions.get("dataset"), run.setting("data", "name"))
    return run.conditions.get("simulated") is True or any(str(name).startswith("simulated") for name in names)


def _rank(role: str) -> int:
    return list(TITLES).index(role) if role in TITLES else len(TITLES)


def _labels(folders: Sequence[RunFolder], experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The role of each run. If several runs share it, the folder's name follows; if names also repeat, its path.

    Bytes that are not UTF-8 are escaped.
    """
    titles = [
        TITLES.get(str(experiment.get("role")), str(experiment.get("role", "other")).capitalize())
        for experiment in experiments
    ]
    titles = [writable(title) for title in titles]
    names = [writable(f"{title} ({folder.name})") for title, folder in zip(titles, folders, strict=True)]
    paths = [writable(f"{title} ({folder.path})") for title, folder in zip(titles, folders, strict=True)]
    return [
        title if titles.count(title) == 1 else name if names.count(name) == 1 else path
        for title, name, path in zip(titles, names, paths, strict=True)
    ]


def writable(text: str) -> str:
    """Text that a UTF-8 file can hold: bytes of a folder's name that are not UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_side_by_side(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if _simulated(runs[0]) != _simulated(run):
            simulated, real = (runs[0], run) if _simulated(runs[0]) else (run, runs[0])
            raise InputError(
                f"{simulated.folder.path} has results on simulated data and {real.folder.path} on real data, which "
                "are never compared; write one report for each"
            )
    scored = [run for run in runs if run.scores is not None]
    for run in scored[1:]:
        for name, one, other in _compared(scored[0], run):
            if one != other:
                raise InputError(
                    f"{scored[0].folder.path} and {run.folder.path} were not scored alike: {name} {_said(one)} in one, "
                    f"{_said(other)} in the other; "
                    "score both on the same split with `lidistill evaluate`, or write one report for each"
                )


def _said(value: Any) -> str:
    return "not recorded" if value is None else repr(value)


def _compared(first: Run, second: Run) -> list[tuple[str, Any, Any]]:
    assert first.scores is not None and second.scores is not None
    compared = [(name, first.conditions.get(key), second.conditions.get(key)) for key, name in CONDITIONS.items()]
    # The number of labelled objects reveals frames of another recording, or of other simulated streets, even if there
    # are equally many.
    return [*compared, ("the labelled objects", dict(first.scores.counts), dict(second.scores.counts))]
