"""`python -m loratui` is `loratui`."""

from loratui.start import main

if __name__ == "__main__":
    main()
