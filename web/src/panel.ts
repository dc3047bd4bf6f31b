/** What became of a request: latency, tokens, the packed context. Everything is set as text, never as HTML. */

import type { Answer, Item } from "./api";

/** The element with an id; the page's own HTML has it. */
export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found as T;
}

/** A new element with text. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, text = "", name = ""): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

interface Part {
  name: string;
  about: string;
  ms: number;
  kind: string;
}

const SHOWN_ITEMS = 50;

/** The parts of a request's time. Where the server does not tell its own, they are one. */
function parts(answer: Answer): Part[] {
  const first = answer.first ?? 0;
  const writing: Part = {
    name: "Writing",
    about: "first token to last",
    ms: (answer.end ?? first) - first,
    kind: "writing",
  };
  const timing = answer.provenance?.timing_ms;
  if (timing?.packing === undefined || timing.first_token === undefined) {
    return [{ name: "First token", about: "the way there, packing, the model", ms: first, kind: "model" }, writing];
  }
  const rest = Math.max(first - timing.packing - timing.first_token, 0);
  return [
    { name: "Way", about: "sending, reading, returning", ms: rest, kind: "way" },
    { name: "Packing", about: "index, ranking, tokens", ms: timing.packing, kind: "packing" },
    { name: "First token", about: "the model reads the prompt", ms: timing.first_token, kind: "model" },
    writing,
  ];
}

function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ms`;
}

function count(value: number | undefined): string {
  return value === undefined ? "unknown" : value.toLocaleString("en");
}

function fill(table: HTMLElement, rows: [string, string, string][]): void {
  const body = make("tbody");
  for (const [name, value, kind] of rows) {
    const row = body.insertRow();
    const head = make("th", name, kind);
    head.scope = "row";
    row.append(head, make("td", value));
  }
  table.replaceChildren(body);
}

/** Show a finished answer. */
export function showAnswer(
  answer: Answer,
  limit: number | undefined,
  licence: (path: string) => string,
  open: (item: Item) => void,
): void {
  element("nothing-yet").hidden = true;
  element("figures").hidden = false;
  showLatency(answer);
  const prompt = answer.usage?.prompt_tokens ?? answer.provenance?.prompt_tokens;
  fill(element("tokens"), [
    ["Prompt", limit ? `${count(prompt)} of at most ${count(limit)}` : count(prompt), ""],
    ["of these cached", count(answer.usage?.prompt_tokens_details?.cached_tokens), ""],
    ["Completion", `${count(answer.usage?.completion_tokens)}${answer.finish === "length" ? ", cut" : ""}`, ""],
  ]);
  showContext(answer, licence, open);
}

function showLatency(answer: Answer): void {
  const measured = parts(answer);
  const total = measured.reduce((sum, part) => sum + part.ms, 0);
  const segments = measured.map((part) => {
    const segment = make("span", "", part.kind);
    segment.style.flexGrow = String(part.ms / (total || 1));
    return segment;
  });
  element("bar").replaceChildren(...segments);
  fill(element("latency"), [
    ...measured.map((part): [string, string, string] => [
      `${part.name} (${part.about})`,
      milliseconds(part.ms),
      `legend ${part.kind}`,
    ]),
    ["Total", milliseconds(total), ""],
  ]);
}

function showContext(answer: Answer, licence: (path: string) => string, open: (item: Item) => void): void {
  const { context = [], why_empty: why = null, warnings = [] } = answer.provenance ?? {};
  const reason = element("why-empty");
  reason.hidden = context.length > 0;
  reason.textContent = context.length ? "" : `Nothing was packed: ${why ?? "the server does not say why"}.`;
  // The best item stands last in the prompt and first here.
  const items = [...context].reverse().slice(0, SHOWN_ITEMS);
  element("context").replaceChildren(...items.map((item) => line(item, licence(item.path), open)));
  element("warnings").hidden = warnings.length === 0;
  element("warnings").replaceChildren(...warnings.map((warning) => make("li", warning)));
}

function line(item: Item, licence: string, open: (item: Item) => void): HTMLElement {
  const button = make("button", item.path, "path");
  button.type = "button";
  button.addEventListener("click", () => open(item));
  const score = `score ${item.score.toPrecision(3)} (${item.strategy})`;
  const facts = make("span", `lines ${item.first_line}–${item.last_line}, ${score}`, "facts");
  const row = make("li");
  row.append(button, facts, make("span", licence || "licence unknown", licence ? "licence" : "licence unknown"));
  return row;
}
