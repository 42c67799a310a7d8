"""The command line: one function a command, no logic. The jobs behind it are in `lidistill.jobs`.

Jobs import torch and Lightning, which takes seconds. A command imports the job it needs, so --help answers at once.
"""

from lidistill.cli import start_commands, training_commands, result_commands  # noqa: F401, I001 (the order of the help)
from lidistill.cli.app import app
from lidistill.cli.ending import main

__all__ = ["app", "main"]
