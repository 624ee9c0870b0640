"""Completion for zsh by a script of our own, which evaluates nothing of what it is answered.

The script that typer has for it evaluates the answer, and folders and cameras are named by strangers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from typer._click.shell_completion import add_completion_class
from typer._completion_classes import ZshComplete

if TYPE_CHECKING:
    from typer._click.shell_completion import CompletionItem

SHELL: Final = "zshlines"
"""What our script asks for: not for ``zsh``, which the scripts of earlier versions evaluate."""

_SCRIPT: Final = """\
#compdef %(prog_name)s

%(complete_func)s() {
  local -a answers
  answers=(${(f)"$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" %(autocomplete_var)s=complete_zshlines %(prog_name)s)"})
  if (( $#answers )); then
    _describe value answers
  else
    _files
  fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  %(complete_func)s "$@"
else
  compdef %(complete_func)s %(prog_name)s
fi
"""  # noqa: E501 - zsh would take a backslash at the end for its own


class ZshLines(ZshComplete):
    """A proposal a line, as ``_describe`` takes them: ``value:help``, with a backslash before a colon."""

    name = SHELL
    source_template = _SCRIPT

    def format_completion(self, item: CompletionItem) -> str:
        value = str(item.value).replace("\\", "\\\\").replace(":", "\\:")
        return f"{value}:{' '.join(item.help.split())}" if item.help else value

    def complete(self) -> str:
        proposals = self.get_completions(*self.get_completion_args())
        return "\n".join(map(self.format_completion, proposals))


class EarlierZsh(ZshLines):
    """For scripts that evaluate the answer: one that holds no name of a stranger's."""

    name = "zsh"

    def complete(self) -> str:
        return f"_message 'this completion is of an earlier version; anew: {self.prog_name} completion zsh'"


def register() -> None:
    """Have typer answer zsh in our way."""
    for kind in (ZshLines, EarlierZsh):
        add_completion_class(kind, kind.name)


def script(program: str, variable: str) -> str:
    """What ``completion zsh`` prints.

    :param variable: in which the shell says what it asks for.
    """
    names = {"complete_func": f"_{program}_completion", "autocomplete_var": variable, "prog_name": program}
    return _SCRIPT % names
