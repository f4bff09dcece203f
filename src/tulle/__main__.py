"""`python -m tulle` is `tulle`."""

from tulle.cli.main import main

if __name__ == "__main__":
    main()
