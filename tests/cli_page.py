"""docs/cli.md, made of what `--help` says: `python -m tests.cli_page` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from streamer.cli import app

PATH = Path(__file__).parents[1] / "docs" / "cli.md"

HEAD = """\
# The command line

Made of what `--help` says, by `python -m tests.cli_page`; a test fails when it is stale.

A command that goes well exits with 0. One that fails exits with 1 and one sentence on stderr, wrong
usage with 2, an interrupt with 130. Settings come from a YAML file, then `STREAMER__…` variables,
then options; the last one wins. `streamer --install-completion` teaches your shell the commands,
their options and the ids of jobs.
"""


def commands() -> dict[str, Any]:
    """Every command by its name, in the order of `streamer --help`."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def paragraphs(command: Any) -> list[str]:
    """What a command says of itself; the last one is its example."""
    return [" ".join(text.split()) for text in command.help.split("\n\n")]


def page() -> str:
    """The whole text."""
    found = commands()
    parts = [HEAD]
    for panel in dict.fromkeys(command.rich_help_panel for command in found.values()):
        listed = [
            f"- [`{name}`](#streamer-{name}): {paragraphs(command)[0]}"
            for name, command in found.items()
            if command.rich_help_panel == panel
        ]
        parts.append("\n".join([f"{panel}:\n", *listed, ""]))
    return "\n".join([*parts, *(_section(name, command) for name, command in found.items())])


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"streamer {name}")
    usage = " ".join([f"streamer {name}", *command.collect_usage_pieces(context)])
    records = [parameter.get_help_record(context) for parameter in command.params]
    *told, example = paragraphs(command)
    return "\n".join(
        [
            f"## streamer {name}\n",
            f"    {usage}\n",
            *(f"{paragraph}\n" for paragraph in told),
            *(f"- `{names}`: {' '.join(meaning.split())}" for names, meaning in records),
            f"\n{example.replace(': ', ': `', 1)}`\n",
        ]
    )


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
