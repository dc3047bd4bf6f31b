"""`infill corpus explain|diff|remove` and `infill model explain`. A command imports what it needs when it runs."""

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infill.cli_options import Commands, absolute_uri, as_json, command, json_option, word
from infill.corpus import opt_out
from infill.errors import InputError

log = logging.getLogger(__name__)


def add(corpus: Commands, commands: Commands) -> None:
    """Add the commands to the group `infill corpus`, and `infill model` to all commands."""
    _add_remove(corpus)
    model = commands.add_parser("model", help="models: see infill model --help")
    _add_model(model.add_subparsers(metavar="COMMAND", required=True))


def _list_option(parser: argparse.ArgumentParser) -> None:
    about = f"the list of opt-outs; default: {opt_out.VARIABLE}, else infill/opt-out.toml in your configuration folder"
    parser.add_argument("--opt-out", type=absolute_uri, metavar="URI", help=about)


def _add_remove(corpus: Commands) -> None:
    about = "record an owner's request: what is built from now on contains nothing of the repository"
    example = 'infill corpus remove --repository acme/widgets --reason "ticket 4711"'
    remove = command(corpus, "remove", _remove, about, example)
    about = "the repository, as the corpus names it; * and ? match any text, case does not count"
    remove.add_argument("--repository", type=word, required=True, metavar="NAME", help=about)
    about = "only these files: a pattern as in a .gitignore"
    remove.add_argument("--path", type=word, metavar="PATTERN", help=about)
    remove.add_argument("--reason", type=word, metavar="TEXT", help="who asked, or which ticket")
    _list_option(remove)
    about = "check the names against this corpus, and count what they cover"
    remove.add_argument("--corpus", type=absolute_uri, metavar="URI", help=about)
    json_option(remove)


def _remove(options: argparse.Namespace) -> dict[str, Any]:
    from infill.corpus import removal

    uri = options.opt_out or opt_out.usual()
    if not uri:
        raise InputError(f"{opt_out.VARIABLE} is set to no list; name one with --opt-out")
    result = removal.remove(
        uri,
        options.repository,
        path=options.path or "",
        reason=options.reason or "",
        corpus=options.corpus or "",
    )
    if not as_json(options):
        _show_removal(result)
    return result


def _show_removal(result: Mapping[str, Any]) -> None:
    what = result["repository"] + (f": {result['path']}" if result["path"] else "")
    lines = [f"{what} {'is now' if result['added'] else 'was already'} in {result['list']}"]
    if "documents" in result:
        count = len(result["repositories"])
        lines.append(f"{result['documents']:,} documents of the corpus are covered, in {count:,} repositories")
    lines.append("the next corpus leaves it out, with its copies in other repositories; models that exist still have it")
    print("\n".join(lines))


def _add_model(model: Commands) -> None:
    about = "list the repositories that a model was trained on, and the opt-outs that it predates"
    explain = command(model, "explain", _explain_model, about, "infill model explain out/demo/store/dpo/KEY")
    about = "a model folder, an adapter, a deployment record or a manifest"
    explain.add_argument("model", type=absolute_uri, metavar="MODEL", help=about)
    about = "where else the artifacts behind the model are: a folder of them, a store, or the folder of a run; repeat it"
    explain.add_argument("--store", type=absolute_uri, action="append", default=[], metavar="URI", help=about)
    _list_option(explain)
    json_option(explain)


def _explain_model(options: argparse.Namespace) -> dict[str, Any]:
    from infill.corpus import lineage, removal

    opt_outs = removal.listed(options.opt_out or "")
    traced = lineage.trace(options.model, options.store)
    result = {
        "model": traced.uri,
        "created": traced.created,
        "complete": not traced.missing,
        "corpora": [
            {"uri": each.uri, "digest": each.digest, "created": each.created, "sources": each.config.get("sources", [])}
            for each in traced.corpora
        ],
        "repositories": lineage.repositories(traced.corpora),
        "opt_outs": lineage.predated(traced.corpora, opt_outs),
        "bases": traced.bases,
        "missing": traced.missing,
    }
    if traced.missing:
        names = ", ".join(f"{each['name']} {each['digest'][:12]}" for each in traced.missing)
        log.warning(
            "infill: the list is not complete: %s not found; name the store or folder that has them with --store", names
        )
    if not as_json(options):
        _show_model(result)
    return result


def _show_model(result: Mapping[str, Any]) -> None:
    corpora = {each["digest"]: each["digest"][:12] for each in result["corpora"]}
    print(f"{result['model']}" + (f", made {result['created']}" if result["created"] else ""))
    for each in result["corpora"]:
        print(f"corpus {corpora[each['digest']]}, made {each['created']}: {each['uri']}")
    for base in result["bases"]:
        print(f"published base {base['name']} ({base['licence']}): what it was trained on is not recorded here")
    show(
        "repositories",
        ("repository", "documents", "splits", "licences", "commit", "corpus"),
        (
            (
                row["repository"],
                f"{row['documents']:,}",
                ", ".join(f"{split} {count:,}" for split, count in row["splits"].items()),
                ", ".join(row["licences"]),
                row["commit"][:12],
                corpora[row["corpus"]],
            )
            for row in result["repositories"]
        ),
    )
    show(
        "opt-outs that the model predates",
        ("repository", "path", "reason", "date", "documents", "corpus"),
        (
            (
                row["repository"],
                row["path"],
                row["reason"],
                row["date"],
                f"{row['documents']:,}",
                corpora[row["corpus"]],
            )
            for row in result["opt_outs"]
        ),
    )


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people; its title alone, with "none", where it has no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    if table.row_count:
        Console(highlight=False).print(table)
    else:
        print(f"{title}: none")
