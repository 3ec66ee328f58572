"""`python -m loratui`, the same as the script `loratui`."""

from loratui.cli import main

if __name__ == "__main__":
    main()
