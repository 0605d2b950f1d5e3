"""``python -m smallfry``."""

from smallfry.cli import main

if __name__ == "__main__":
    main()
