"""The screenshots of these pages: real commands on the demo's gallery, written as SVG by rich.

``python docs/make_screens.py`` writes ``docs/screens/NAME.svg``; it takes half a minute, and no network.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import sys
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from imagedbd.cli import private_daemon
from imagedbd.cli.waiting import wait_with_progress
from imagedbd.demo.gallery import write_gallery
from imagedbd.processes import python

SCREENS: Final = Path(__file__).with_name("screens")
SIZE: Final = (40, 100)
"""Lines and columns of the terminal."""
COMMANDS: Final = {
    "search": ["search", "a red car", "-n", "6"],
    "arithmetic": ["search", "2:sailboat + sunset - beach", "--camera", "iphone", "-n", "3"],
    "status": ["status"],
}


def main() -> None:
    with ExitStack() as stack:
        home = private_daemon.make_home()
        stack.callback(shutil.rmtree, home)
        gallery = Path(home, "Pictures")
        gallery.mkdir()
        write_gallery(gallery, 240)
        daemon = private_daemon.start(home, str(gallery), "demo")
        stack.callback(daemon.stop)
        daemon.wait_until_up()
        wait_with_progress(daemon.target, None)
        SCREENS.mkdir(exist_ok=True)
        for name, words in COMMANDS.items():
            seen = _on_a_terminal([*words, *daemon.options], home)
            _draw(SCREENS / f"{name}.svg", " ".join(["imagedb", *map(_quoted, words)]), seen)


def _on_a_terminal(words: list[str], home: str) -> str:
    """What a command shows on a terminal of its own, with its colours."""
    environment = {**os.environ, "HOME": home, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = python("imagedbd.cli", *words)
    child, ours = pty.fork()
    if not child:
        termios.tcsetwinsize(0, SIZE)
        os.chdir(home)
        os.execve(command[0], command, environment)
    seen = b""
    try:
        while chunk := os.read(ours, 65_536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{words}: exit code {code}\n{seen.decode(errors='replace')}")
    return seen.decode().replace("\r\n", "\n")


def _draw(path: Path, command: str, seen: str) -> None:
    columns = SIZE[1]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, color_system="truecolor")
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(seen.rstrip("\n")))
        drawing = console.export_svg(title="imagedb", unique_id=path.stem)
    # The fonts would be fetched from elsewhere by whoever looks.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL), encoding="utf-8")


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


if __name__ == "__main__":
    main()
