"""`infill corpus explain|diff|remove` and `infill model explain`. A command imports what it needs when it runs."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infill.cli_options import Commands, absolute_uri, as_json, command, integer, json_option, output_file, word
from infill.corpus import opt_out
from infill.corpus.reasons import MEANING
from infill.errors import InputError


def add(corpus: Commands, commands: Commands) -> None:
    """Add the commands to the group `infill corpus`, and `infill model` to all commands."""
    _add_explain(corpus)
    _add_diff(corpus)
    _add_remove(corpus)
    model = commands.add_parser("model", help="models: see infill model --help")
    _add_model(model.add_subparsers(metavar="COMMAND", required=True))


def _list_option(parser: argparse.ArgumentParser) -> None:
    about = f"the list of opt-outs; default: {opt_out.VARIABLE}, else infill/opt-out.toml in your configuration folder"
    parser.add_argument("--opt-out", type=absolute_uri, metavar="URI", help=about)


def _add_explain(corpus: Commands) -> None:
    about = "tell where a file of a corpus came from, under which licence, and what was done to it"
    example = "infill corpus explain widgets/src/app.py --corpus out/corpus"
    explain = command(corpus, "explain", _explain, about, example)
    about = "a path, with or without its repository, or the SHA-256 of a document (8 digits are enough)"
    explain.add_argument("file", type=word, metavar="PATH|SHA256", help=about)
    explain.add_argument("--corpus", type=absolute_uri, required=True, metavar="URI", help="the finished corpus")
    json_option(explain)


def _explain(options: argparse.Namespace) -> list[dict[str, Any]]:
    from infill.corpus import explain

    entries = explain.explain(options.corpus, options.file)
    if not as_json(options):
        say("\n\n".join(_description(entry) for entry in entries))
    return entries


def _description(entry: Mapping[str, Any]) -> str:
    """Return what is known of one file, for people."""
    fate = "kept" if entry["kept"] else f"removed: {entry['reason']}"
    lines = {
        "": f"{entry['repo']}/{entry['path']}" if entry["repo"] else entry["path"],
        "what": fate + (f" ({entry['detail']})" if entry.get("detail") else ""),
        "meaning": "" if entry["kept"] else MEANING.get(entry["reason"], ""),
        "repository": entry["repo"],
        "source": entry["source"],
        "commit": entry.get("commit"),
        "date": entry.get("date"),
        "licence": entry["licence"],
        "evidence": entry["licence_evidence"],
        "language": entry.get("language"),
        "split": entry.get("split"),
        "SHA-256": entry.get("sha256"),
        "copy of": entry.get("copy_of"),
        "copies": ", ".join(f"{copy['name']} ({copy['reason']})" for copy in entry.get("copies", [])),
        "replaced": ", ".join(
            f"{place['kind']} in line {place['line']} by {place['placeholder']}"
            for place in entry.get("redactions", [])
        ),
    }
    return "\n".join(f"{name:<12}{value}" if name else str(value) for name, value in lines.items() if value)


def _add_diff(corpus: Commands) -> None:
    about = "tell what changed between two corpora; exit code 1 where something did, 0 where nothing did"
    diff = command(corpus, "diff", _diff, about, "infill corpus diff out/corpus out/corpus-without")
    diff.add_argument("old", type=absolute_uri, metavar="OLD", help="the finished corpus before")
    diff.add_argument("new", type=absolute_uri, metavar="NEW", help="the finished corpus after")
    about = "rows of each table; JSON has all of them; default: %(default)s"
    diff.add_argument("--rows", type=integer("the number of rows", 0), default=20, metavar="N", help=about)
    json_option(diff)


def _diff(options: argparse.Namespace) -> dict[str, Any]:
    from infill.corpus import explain

    result = explain.compare(options.old, options.new)
    options.exit_code = int(any(result["counts"].values()))
    if not as_json(options):
        _show_diff(result, options.rows)
    return result


def _show_diff(result: Mapping[str, Any], most: int) -> None:
    counts = result["counts"]
    say(", ".join(f"{counts[name]:,} {title}" for name, title in CHANGED.items()))
    for name, title in CHANGED.items():
        columns = ("repo", "path", *COLUMNS.get(name, ("before", "after")))
        rows = [[str(row[column] or "") for column in columns] for row in result[name][:most]]
        if rows:
            more = f" ({len(rows):,} of {counts[name]:,}; --json has all)" if len(rows) < counts[name] else ""
            show(f"{title}{more}", columns, rows)


CHANGED = {
    "in": "documents in",
    "out": "documents out",
    "licence": "with another licence",
    "content": "with another content",
    "split": "in another split",
}
COLUMNS = {"in": ("licence", "split"), "out": ("licence", "reason", "detail")}


def _add_remove(corpus: Commands) -> None:
    about = "record an owner's request: what is built from now on contains nothing of the repository"
    example = 'infill corpus remove --repository acme/widgets --reason "ticket 4711"'
    remove = command(corpus, "remove", _remove, about, example)
    about = "the repository, as the corpus names it; * and ? match any text, case does not count"
    remove.add_argument("--repository", type=word, required=True, metavar="NAME", help=about)
    about = "only these files: a pattern as in a .gitignore"
    remove.add_argument("--path", "--pattern", type=word, metavar="PATTERN", help=about)
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
    lines.append(
        "the next corpus leaves it out, with its copies in other repositories; models that exist still have it"
    )
    say("\n".join(lines))


def _add_model(model: Commands) -> None:
    about = "list the repositories that a model was trained on, and the opt-outs that it predates"
    explain = command(model, "explain", _explain_model, about, "infill model explain out/demo/store/dpo/KEY")
    about = "a model folder, an adapter, a deployment record or a manifest"
    explain.add_argument("model", type=absolute_uri, metavar="MODEL", help=about)
    about = "another place of artifacts that the model was made of: a folder of them, a store, or a run (repeatable)"
    explain.add_argument("--store", type=absolute_uri, action="append", default=[], metavar="URI", help=about)
    _list_option(explain)
    about = "write the repositories as a CycloneDX bill, such as bom.cdx.json in the model folder"
    explain.add_argument("--bill", type=output_file, metavar="FILE", help=about)
    json_option(explain)


def _explain_model(options: argparse.Namespace) -> dict[str, Any]:
    from infill import storage
    from infill.corpus import bill, lineage, removal

    result = lineage.explain(options.model, removal.listed(options.opt_out or ""), options.store)
    if result["missing"]:
        names = ", ".join(f"{each['name']} {each['digest'][:12]}" for each in result["missing"])
        bills = " and ".join(result["bills"])
        consequence = f"repositories are taken from {bills}" if bills else "the list is not complete"
        sys.stderr.write(
            f"infill: {consequence}: {names} not found; name the store or folder that has them with --store\n"
        )
    if options.bill:
        storage.write_bytes(str(options.bill), bill.of_model(result["repositories"]).encode())
    if not as_json(options):
        _show_model(result)
    return result


def _show_model(result: Mapping[str, Any]) -> None:
    corpora = {each["digest"]: each["digest"][:12] for each in result["corpora"]} | {"bill": "bill"}
    say(f"{result['model']}" + (f", made {result['created']}" if result["created"] else ""))
    for each in result["corpora"]:
        say(f"corpus {corpora[each['digest']]}, made {each['created']}: {each['uri']}")
    for base in result["bases"]:
        say(f"published base {base['name']} ({base['licence']}): what it was trained on is not recorded here")
    show(
        "repositories",
        ("repository", "documents", "splits", "licences", "commit", "corpus"),
        (
            (
                row["repository"],
                f"{row['documents']:,}",
                ", ".join(row["splits"]),
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


def say(text: str) -> None:
    """Print a text for people."""
    sys.stdout.write(f"{text}\n")


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
        say(f"{title}: none")
