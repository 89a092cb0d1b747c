"""`python -m anchored` is `anchored`."""

from anchored.cli import main

if __name__ == "__main__":
    main()
