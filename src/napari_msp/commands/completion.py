"""`completion`: print the code that lets a shell complete commands and options."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console

SUMMARY = "Print what a shell needs to complete commands and options"
EXAMPLE = "napari-msp completion bash"


def add_options(command: ArgumentParser) -> None:
    """Add the shell that it is for."""
    shared.section(command).add(
        "shell bash|zsh|tcsh", "Shell of your terminal.", choices=("bash", "zsh", "tcsh")
    )


def run(options: Namespace, console: Console) -> int:
    """Print the completion, for the shell to read when it starts."""
    import shtab

    from napari_msp.cli import build_parser

    console.result(shtab.complete(build_parser(), options.shell))
    return 0
