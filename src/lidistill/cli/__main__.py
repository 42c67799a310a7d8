"""`python -m lidistill.cli`."""

from lidistill.cli import main

main()
