"""Distillation inside your own loop: a detector, a frozen teacher, a method, and one number to minimise.

python examples/own_training_loop.py [steps]
"""

import sys

import torch

from lidistill.detectors import WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation import METHODS
from lidistill.simulate import SimulatorSettings, simulate_frame
from lidistill.training.objective import Distilled
from lidistill.types import Boxes, Frame, collate


def frame(index: int, classes: tuple[str, ...]) -> Frame:
    """One simulated scan with its boxes."""
    scan = simulate_frame(SimulatorSettings(sensor="kitti-lite"), seed=0, index=index)
    rows = [row for row, name in enumerate(scan.objects.names) if name in classes]
    labels = torch.tensor([classes.index(scan.objects.names[row]) for row in rows], dtype=torch.int64)
    return Frame(
        str(index),
        torch.from_numpy(scan.points),
        Boxes(torch.from_numpy(scan.objects.geometry[rows]).float().reshape(-1, 7), labels),
    )


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    config = preset("pointpillars", "simulated")
    teacher = config.build()  # load your trained weights here
    student = config.thinner(WidthRule.for_compression(4)).build()
    method = METHODS["pointdistiller"](num_queries=500, num_neighbours=32).build(teacher.tap_specs, student.tap_specs)
    objective = Distilled(student, teacher, [method])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    for step in range(steps):
        losses = objective(collate([frame(2 * step, config.classes), frame(2 * step + 1, config.classes)]))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        print(step, {name: round(term.item(), 3) for name, term in losses.terms.items()})
    torch.save(student.state_dict(), "student.pt")  # the student alone: no teacher, no adapter


if __name__ == "__main__":
    main()
