"""Train a teacher on simulated streets, distil a quarter-size student from it, and say what the lessons brought.

python examples/distil_on_the_simulator.py runs/example [training.steps=500 ...]
"""

import sys
from pathlib import Path

from lidistill import jobs


def main() -> None:
    out, overrides = Path(sys.argv[1]), sys.argv[2:]
    jobs.train(jobs.supervised("pointpillars", data=f"simulated:{out / 'data'}", overrides=overrides), out / "teacher")
    plain = jobs.train(jobs.plain_student(str(out / "teacher"), compression=4), out / "plain")
    lessons = jobs.distilled(str(out / "teacher"), compression=4, methods=["pointdistiller", "logits"])
    distilled = jobs.train(lessons, out / "distilled", certificate=False)
    print(f"simulated, {plain.main}: alone {plain.headline}, distilled {distilled.headline}")


if __name__ == "__main__":
    main()
