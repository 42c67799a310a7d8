"""Score KITTI result files of any tool by the official rules, on a CPU.

python examples/score_results.py LABEL_FOLDER RESULT_FOLDER
"""

import sys

from lidistill.datasets.kitti.object_folders import evaluate_folder, read_label_folder
from lidistill.report.render.console import print_scores


def main() -> None:
    truths = read_label_folder(sys.argv[1])
    scores, _ = evaluate_folder(truths, sys.argv[2], classes=("Car", "Pedestrian", "Cyclist"))
    print_scores(scores)


if __name__ == "__main__":
    main()
