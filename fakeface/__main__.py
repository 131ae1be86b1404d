"`python -m fakeface`"

# Written by hand: in a notebook `__name__` is `__main__`, too, so the cell that exports this would run the command.
import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
