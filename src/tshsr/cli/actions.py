"""Commands with actions, such as `tshsr data check`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from tshsr.cli.options import listed
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

Action = tuple[str, Callable[[Sequence[str], Screen], None]]
"""The rest of a line of help, and the function that runs the action."""


def run_action(command: str, actions: Mapping[str, Action], arguments: Sequence[str], screen: Screen) -> None:
    """Run the action that the first argument names, or show the help of the command.

    Args:
        command: Its name, such as data.

    Raises:
        SettingsError: Where no action is named.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        screen.say(f"usage: tshsr {command} {'|'.join(actions)} ...\n")
        for name, (line, _) in actions.items():
            screen.say(f"  tshsr {command} {name} {line}")
        screen.say(
            f"\ntshsr {command} {next(iter(actions))} --help lists the options of {next(iter(actions))}, and so on."
        )
        return
    if not arguments or arguments[0] not in actions:
        near = difflib.get_close_matches(arguments[0], actions, n=1) if arguments else []
        got = f"got {arguments[0]!r}" if arguments else "got nothing"
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SettingsError(f"tshsr {command} expects {listed(tuple(actions), 'or')}, {got}{hint}")
    actions[arguments[0]][1](arguments[1:], screen)
