"""The edge between a helper, a Click command, and its user."""

from __future__ import annotations

import click

from tpumake.errors import BadInput, CheckFailed, run_guarded
from tpumake.files import atomic_write

__all__ = ["BadInput", "CheckFailed", "atomic_write", "run"]


def run(command: click.Command) -> None:
    """Run a Click command as a program and exit, with one line for whatever goes wrong."""

    def main() -> object:
        try:
            return command.main(standalone_mode=False)
        except click.Abort:
            raise KeyboardInterrupt from None
        except click.ClickException as error:
            raise BadInput(error.format_message()) from None

    run_guarded(main)
