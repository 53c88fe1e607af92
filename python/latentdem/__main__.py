"""`python -m latentdem` is the command `latentdem`."""

from .cli import main

if __name__ == "__main__":
    main()
