"""`infill lsp`, the command that an editor starts. It imports what it needs when it runs."""

import argparse
import os
from typing import get_args

from infill.cli_options import Commands, command, integer, url


def add(commands: Commands) -> None:
    """Add the command to `infill`."""
    from infill.api_key import KEY_VARIABLE
    from infill.editor.user_settings import BOUNDS, DEFAULT_URL, URL_VARIABLE, Fallback, UserSettings, Where

    usual = UserSettings()
    lsp = command(
        commands,
        "lsp",
        _lsp,
        "complete in your editor: a language server on standard input and output, which the editor starts",
        "infill lsp --url http://localhost:8080 --languages python,go",
    )
    lsp.description = f"{lsp.description}\n\n{LSP_HELP.format(key=KEY_VARIABLE)}"
    lsp.formatter_class = argparse.RawDescriptionHelpFormatter
    at = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    lsp.add_argument(
        "--url", type=url, default=at, help=f"the Infill server; default: {URL_VARIABLE}, else {DEFAULT_URL}"
    )
    lsp.add_argument(
        "--languages",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        metavar="NAMES",
        help="complete only in these languages, such as python,typescriptreact; default: all",
    )
    for name, unit in (("debounce", "pause in typing before the server is asked"), ("timeout", "longest wait")):
        low, high = BOUNDS[f"{name}_ms"]
        value = getattr(usual, f"{name}_ms")
        kind = integer(name, low, high)
        lsp.add_argument(f"--{name}", type=kind, default=value, metavar="MS", help=f"{unit}; default: %(default)s")
    most = integer("the number of tokens", *BOUNDS["max_tokens"])
    lsp.add_argument("--max-tokens", type=most, default=usual.max_tokens, help="default: %(default)s")
    lsp.add_argument(
        "--fallback",
        choices=get_args(Fallback),
        default=usual.fallback,
        help="answer textDocument/completion; auto: if the editor has no inline completion; default: %(default)s",
    )
    lsp.add_argument(
        "--workspace",
        choices=get_args(Where),
        default=usual.workspace,
        help="client: index the project here and send packed prompts; server: send the project's files to the server "
        "once and then what changes; default: %(default)s",
    )
    lsp.add_argument("--stdio", action="store_true", help="ignored: editors add it")


LSP_HELP = """\
Your files are read, indexed and ranked on this machine; files that Git ignores are left out. Only the packed prompt is
sent to the Infill server. With --workspace server, the files themselves are sent instead, once and after each change,
and the server indexes them in memory. Start the server first:

  infill serve --out out/demo                               # or a colleague's
  infill lsp --url http://127.0.0.1:8080                    # the command that the editor starts

If the server requires a key, set {key}; there is no option for it.

Helix, in languages.toml:

  [language-server.infill]
  command = "infill"
  args = ["lsp", "--url", "http://127.0.0.1:8080"]

  [[language]]
  name = "python"
  language-servers = ["pylsp", "infill"]

Neovim 0.12, in init.lua:

  vim.lsp.config("infill", {{ cmd = {{ "infill", "lsp" }}, root_markers = {{ ".git" }} }})
  vim.lsp.enable("infill")
  vim.lsp.inline_completion.enable()

VS Code, Emacs, JetBrains, Zed: docs/editors.

The editor can change these settings at run time: url, enabled, languages, debounceMs, timeoutMs, maxTokens,
fallback, workspace and telemetry (off unless you set it), in initializationOptions or in its section "infill". {key},
files and telemetry are sent only to the server named at the start.
To install only this command, without the training stack: pip install 'infill[lsp]'
"""


def _lsp(options: argparse.Namespace) -> None:
    from infill.editor.language_server import serve
    from infill.editor.user_settings import UserSettings

    serve(
        UserSettings(
            url=options.url,
            languages=options.languages,
            debounce_ms=options.debounce,
            timeout_ms=options.timeout,
            max_tokens=options.max_tokens,
            fallback=options.fallback,
            workspace=options.workspace,
        )
    )
