"""`python -m lidistill.cli`."""

from lidistill.cli import main

if __name__ == "__main__":
    main()
