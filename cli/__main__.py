"""``python -m cli``: the command ``atelier``, where its console script is not installed."""

from cli.app import main

if __name__ == "__main__":
    main()
