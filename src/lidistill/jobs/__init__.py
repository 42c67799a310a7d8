"""What a person asks for, one function a command: the same from Python as from the command line."""

from lidistill.jobs.checkpoints import import_run
from lidistill.jobs.demo import demo
from lidistill.jobs.evaluation import evaluate
from lidistill.jobs.prediction import predict
from lidistill.jobs.runs import Run, load_run
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.jobs.training import train

__all__ = ["Run", "demo", "distilled", "evaluate", "import_run", "load_run", "plain_student", "predict", "supervised", "train"]
