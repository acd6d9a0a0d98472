"""`python -m streamer`."""

from streamer.cli import app


def main() -> None:
    app(prog_name="streamer")


if __name__ == "__main__":
    main()
