"""The command line: one function per command, without logic. The jobs behind them are in `lidistill.jobs`.

Jobs import torch and Lightning, which takes seconds. Each command imports only the job it needs, so --help answers at
once.
"""

from lidistill.cli import start_commands, training_commands, result_commands  # noqa: F401, I001 (the help's order)
from lidistill.cli.app import app
from lidistill.cli.ending import main

__all__ = ["app", "main"]
