"""`python -m oncetask`: the command line."""

from oncetask.cli import main

if __name__ == "__main__":
    main()
