"""The model card: a model's data, trainings, cost and evaluation, written from manifests and reports.

`card.json` in the model folder has the facts, with one record per training, and is passed on from a base model to its
descendants; `README.md` is rendered from it. This module does not import torch: the release stage uses it to add the
winner's evaluation.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from infill import bases, manifest, prompt, storage
from infill.artifacts.corpus import DATASHEET_FILE
from infill.artifacts.evaluation import RECORD_FILE
from infill.prompt import PromptFormat
from infill.train import cost, history

FILE_NAME: Final = manifest.CARD_FILE
"""The model's last file to be written."""
FACTS_FILE: Final = manifest.CARD_FACTS_FILE
RELEASED_FILE: Final = "MODEL_CARD.md"
"""The winner's card with its evaluation, in the artifact of the register stage."""
WEIGHTS: Final = re.compile(r".*\.(safetensors|bin)")
ROWS: Final = 20
"""Maximum rows of a table of shares; all further values are one row."""

Facts = dict[str, Any]

LIMITATIONS: Final = """\
- It completes code and does nothing else: it follows no instructions and knows nothing of what happened after its data.
- Completions may be wrong, insecure or out of date. Review and test them like any code that you did not write.
- It may repeat parts of the code that it was trained on; what is repeated is under the licence of its source.
- Languages that are rare in the data are completed badly.
- Personal data, secrets, near-duplicates and public benchmarks are removed only as far as the corpus's datasheet says.
"""


def start(corpus: str, tokenizer: str, *, licence: str, parameters: int) -> Facts:
    """Return the facts of a model that is trained from scratch on the artifacts `corpus` and `tokenizer`."""
    data_manifest, words = manifest.load(corpus), manifest.load(tokenizer)
    report: Facts = manifest.read_report(corpus) if manifest.REPORT_FILE in data_manifest.files else {}
    data: Facts = {
        "corpus": data_manifest.digest,
        "sources": [_source(source) for source in data_manifest.config.get("sources", [])],
        **{name: report[name] for name in ("by_licence", "by_language", "by_split", "repositories") if name in report},
    }
    figures = {name: words.metrics[name] for name in ("vocab_size", "bytes_per_token") if name in words.metrics}
    return {"licence": licence, "parameters": parameters, "data": data, "tokenizer": figures, "trainings": []}


def of_base(base: str, named: str = "") -> Facts:
    """Return the facts that a model inherits from the model folder `base`, which the user may have `named` otherwise.

    For a base that Infill did not train they are few: its licence, as its publisher states it, and its digest.
    """
    file, origin = storage.join(base, FACTS_FILE), storage.join(base, bases.FACTS_FILE)
    if storage.exists(file):
        return dict(storage.read_json(file))
    facts: Facts = {"licence": "other", "source": _source(named or base), "trainings": []}
    if storage.exists(origin):
        published = storage.read_json(origin)
    elif storage.exists(storage.join(base, "config.json")):
        published = {"source": facts["source"], "licence": stated_licence(base), "sha256": weights_digest(base)}
    else:
        return facts
    return {**facts, "licence": published["licence"], "base": published}


def stated_licence(folder: str) -> str:
    """Return the licence in the metadata of a published model's README; "other" if it states none."""
    from huggingface_hub.repocard import metadata_load

    file = storage.join(folder, FILE_NAME)
    if not storage.exists(file):
        return "other"
    try:
        stated = metadata_load(storage.fetch(file)) or {}
    except (ValueError, yaml.YAMLError):  # no mapping, no YAML
        return "other"
    licence = stated.get("license_name") if stated.get("license") == "other" else stated.get("license")
    names = [name for name in (licence if isinstance(licence, list) else [licence]) if isinstance(name, str) and name]
    return " OR ".join(names) or "other"


def weights_digest(folder: str) -> str:
    """Return the SHA-256 of the weight files of a model folder, from its manifest if it has one."""
    artifact = manifest.find(folder)
    if artifact:
        digests = {name: entry["sha256"] for name, entry in artifact.files.items() if WEIGHTS.fullmatch(name)}
    else:
        files = (path for path in storage.fetch(folder).iterdir() if WEIGHTS.fullmatch(path.name))
        digests = {path.name: storage.sha256(str(path)) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _source(uri: str) -> str:
    """Return only the last part of a local folder, since paths are private; return anything else unchanged."""
    kind, _, path = uri.rpartition(":")
    if "://" in uri or not path.strip("/"):
        return uri
    return f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if kind else path.rstrip("/").rpartition("/")[2]


def trained(facts: Facts, stage: str, output: str, inputs: Mapping[str, str]) -> Facts:
    """Return `facts` with a record of the training whose history is in `output`; `inputs` are digests by name."""
    spent = [
        {"device": device, "workers": workers, "seconds": seconds, "kwh": cost.energy_kwh(seconds, device, workers)}
        for (device, workers), seconds in history.spent(history.read(output)).items()
    ]
    figures = {"stage": stage, **history.metrics(output), "spent": spent}
    record = {**figures, "inputs": dict(inputs), "commit": manifest.commit()}
    return {**facts, "trainings": [*facts["trainings"], record]}


def write(output: str, facts: Facts, *, title: str, about: str) -> None:
    """Write both files of the card to the model folder `output`."""
    facts = {**facts, "title": title, "about": about}
    storage.write_json(storage.join(output, FACTS_FILE), facts)
    fmt = PromptFormat.from_json(storage.read_json(storage.join(output, prompt.FILE_NAME)))
    storage.write_bytes(storage.join(output, FILE_NAME), render(facts, fmt).encode())


def complete(model: str, record: Mapping[str, Any], reason: str) -> str:
    """Return the card of the model folder `model` with its evaluation (`record.json`) and the reason of its release."""
    fmt = prompt.load_format(storage.fetch(model))
    facts = {"title": "Infill completion model", "about": "", **of_base(model)}
    return render({**facts, "evaluation": {**record, "reason": reason}}, fmt)


def render(facts: Facts, fmt: PromptFormat) -> str:
    """Return the card as Markdown, preceded by the metadata that the Hugging Face hub reads."""
    parts = [
        _header(facts),
        f"# {facts['title']}\n\n{facts['about']}\n",
        _use(fmt),
        _data(facts),
        _trainings(facts["trainings"]),
        _energy(facts["trainings"]),
        _evaluation(facts.get("evaluation")),
        f"## Limitations\n\n{LIMITATIONS}",
        _licence(facts),
    ]
    return "\n".join(parts)


def of_adapter(facts: Facts, base: Mapping[str, str], digest: str, rank: int = 0) -> str:
    """Return the card of an adapter as Markdown; `base` is the name and the digest of the model that it belongs to.

    With a `rank` it is one for vLLM.
    """
    use = f"infill run --base-model {facts.get('source', 'BASE')} --add-fim --adapter FOLDER"
    if rank:
        use = f"vllm serve BASE --enable-lora --max-lora-rank {rank} --lora-modules infill=FOLDER"
    return "\n".join(
        [
            _header(facts, "peft"),
            f"# {facts['name']}\n",
            f"A LoRA adapter for `{base['name'] or 'a model'}` (SHA-256 `{base['weights_sha256']}`). It belongs to",
            "that model alone and holds nothing of its weights.\n",
            f"## Use\n\n```sh\n{use}\n```\n",
            _trainings(facts["trainings"]),
            _energy(facts["trainings"]),
            f"## Limitations\n\n{LIMITATIONS}",
            f"## Licence and provenance\n\n`{facts['licence']}`. SHA-256 of weights and settings: `{digest}`.\n"
            + _inputs(facts["trainings"]),
            "",
        ]
    )


def _header(facts: Facts, library: str = "transformers") -> str:
    """Return the metadata as YAML, as described in huggingface.co/docs/hub/model-cards."""
    header: dict[str, Any] = {
        "language": ["code"],
        "license": facts["licence"],
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": ["code", "fill-in-the-middle", "code-completion", "infill"],
    }
    if evaluation := facts.get("evaluation"):
        metrics = [{"type": name, "value": figure["value"]} for name, figure in evaluation["metrics"].items()]
        benchmark = {"type": "infill-holes", "name": f"held-out holes {evaluation['benchmark_digest'][:12]}"}
        task = {"type": "text-generation", "name": "fill in the middle"}
        header["model-index"] = [
            {"name": facts["title"], "results": [{"task": task, "dataset": benchmark, "metrics": metrics}]}
        ]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---"


def _use(fmt: PromptFormat) -> str:
    roles = ("endoftext", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "filename")
    tokens = "\n".join(f"| {role} | {getattr(fmt, role)} |" for role in roles)
    path, end = "{path}\\n", json.dumps(fmt.item_end)[1:-1]
    before, inside = (f"<filename>{path}", "") if not fmt.path_in_prefix else ("<filename>", path)
    suffix, prefix = "<fim_suffix>{suffix}", f"<fim_prefix>{inside}{{prefix}}"
    hole = suffix + prefix if fmt.order == "spm" else prefix + suffix
    return f"""## Use

```sh
infill serve --model FOLDER         # with the project's files as context
infill export gguf FOLDER --to FILE # for llama.cpp
```

Prompt format `{fmt.name}`, version {fmt.version} (`{prompt.FILE_NAME}`, rendered by `infill.prompt.render`):

```
(<filename>{{path}}\\n{{content}}{end})* {before}{hole}<fim_middle>
```

Control tokens are inserted as ids; text is never parsed for them. Decode greedily and stop at any `eos_token_id` of
`generation_config.json`.

| role | id |
| --- | ---: |
{tokens}
"""


def _data(facts: Facts) -> str:
    data = facts.get("data")
    if not data:
        return f"## Data\n\nNot known to Infill: the base model `{facts.get('source', '')}` has a card of its own.\n"
    train = data.get("by_split", {}).get("train", {})
    words = facts["tokenizer"]
    lines = [
        "## Data",
        "",
        f"Sources: {', '.join(f'`{source}`' for source in data['sources']) or 'not recorded'}."
        f" Corpus `{data['corpus'][:12]}`, described by its `{DATASHEET_FILE}`.",
    ]
    if train:
        lines.append(
            f"{train['documents']:,} files ({_megabytes(train['bytes'])} MB) of {train['repositories']:,} repositories"
            f" are trained on; those of {data['repositories'] - train['repositories']:,} others are held out."
        )
    lines.append(
        f"Tokenizer: {words['vocab_size']:,.0f} entries, " + _or_unknown(words.get("bytes_per_token"), "bytes a token.")
    )
    for name in ("licence", "language"):
        if groups := data.get(f"by_{name}"):
            lines += ["", *_shares(name, groups)]
    return "\n".join([*lines, ""])


def _or_unknown(value: float | None, unit: str) -> str:
    return f"{'unknown' if value is None else format(value, '.3g')} {unit}"


def _shares(name: str, groups: Mapping[str, Mapping[str, int]]) -> list[str]:
    ordered = sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    if rest := ordered[ROWS:]:
        both = {key: sum(entry[key] for _, entry in rest) for key in ("documents", "bytes")}
        ordered = [*ordered[:ROWS], (f"{len(rest)} others", both)]
    rows = [f"| {value} | {entry['documents']:,} | {_megabytes(entry['bytes'])} |" for value, entry in ordered]
    return [f"| {name} | files | MB |", "| --- | ---: | ---: |", *rows]


def _megabytes(count: int) -> str:
    return format(count / 1e6, ",.0f" if count >= 1e8 else ".3g")


def _trainings(trainings: Sequence[Facts]) -> str:
    rows = []
    for record in trainings:
        where = ", ".join(f"{part['workers']} x {part['device']}" for part in record["spent"])
        hours = sum(part["seconds"] for part in record["spent"]) / 3_600
        held_out = record.get("bits_per_byte")
        rows.append(
            f"| {record['stage']} | {record['steps']:,.0f} | {record['tokens']:,.0f} | {record['flops']:.3g} |"
            f" {where} | {hours:.3g} | {record['loss_first']:.3f} to {record['loss_last']:.3f} |"
            f" {'' if held_out is None else format(held_out, '.3f')} |"
        )
    if not rows:
        return "## Training\n\nImported, not trained by Infill.\n"
    heads = "stage | steps | tokens | FLOPs | hardware | hours | loss | bits per byte, held out"
    return "\n".join(
        [
            "## Training",
            "",
            f"| {heads} |",
            "| --- | ---: | ---: | ---: | --- | ---: | --- | ---: |",
            *rows,
            "",
            "Operations are counted, not measured: 6 for each weight and token, 12 for each pair of positions that see",
            "each other, layer and unit of width (arXiv 2204.02311, appendix B). Hours are those of the steps kept.",
            "",
        ]
    )


def _energy(trainings: Sequence[Facts]) -> str:
    parts = [part for record in trainings for part in record["spent"]]
    if not parts:
        return ""
    unknown = sorted({part["device"] for part in parts if part["kwh"] is None})
    if unknown:
        text = f"Unknown: the power of {', '.join(unknown)} is not known to us, and we do not guess it."
    else:
        text = (
            f"At most {sum(part['kwh'] for part in parts):.3g} kWh: hours x devices x the board's power limit"
            f" x PUE {cost.PUE} (formula: arXiv 2104.10350; PUE: mean of the Uptime Institute's survey of 2024;"
            " limits: the makers' data sheets). Hosts, networks and failed attempts are not in it."
        )
    return f"## Energy\n\n{text}\n"


def _evaluation(record: Mapping[str, Any] | None) -> str:
    if record is None:
        where = f"see `{RELEASED_FILE}` next to the gate's decision, or the evaluation's `{RECORD_FILE}`"
        return f"## Evaluation\n\nNot in this card: {where}.\n"
    rows = [
        f"| {name.replace('_', ' ')} | {figure['value']:.3f} | {figure['low']:.3f} to {figure['high']:.3f} |"
        for name, figure in record["metrics"].items()
    ]
    return "\n".join(
        [
            "## Evaluation",
            "",
            f"Greedy completions of {record['holes']:,} syntactic holes in held-out repositories. {record['reason']}",
            "",
            "| metric | value | 95 % interval |",
            "| --- | ---: | --- |",
            *rows,
            "",
        ]
    )


def _licence(facts: Facts) -> str:
    licence = facts["licence"]
    text = (
        f"`{licence}`."
        if licence != "other"
        else "Whoever trained the model decides; the data's licences are listed above."
    )
    parts = [("Base", facts.get("base")), ("Adapter", facts.get("adapter"))]
    origins = "".join(
        f"{what}: `{part.get('name') or part['source']}`, licence `{part['licence']}`, SHA-256 `{part['sha256']}`.\n"
        for what, part in parts
        if part
    )
    return f"""## Licence and provenance

{text} `{manifest.FILE_NAME}` names every file with its digest, the configuration, and the digests of the inputs.
{origins}{_inputs(facts["trainings"])}
"""


def _inputs(trainings: Sequence[Facts]) -> str:
    """Return the digests of the trainings' inputs as a Markdown list."""
    rows = [
        f"- {record['stage']}: {json.dumps(record['inputs'])}, commit `{record['commit'][:12]}`" for record in trainings
    ]
    return "\n".join(["", "Digests of the inputs:", "", *rows]) if rows else ""
