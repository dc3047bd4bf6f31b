// "What was packed and why" as text, with the places that its lines lead to.

import type { Counts } from "./offers.js";

/** The answer to the request `infill/lastCompletion`. */
export interface LastCompletion {
  path: string;
  root: string | null;
  model: string;
  timing_ms: { packing: number; server: number; first_token?: number };
  latency_ms: number;
  prompt_tokens: number;
  max_prompt_tokens: number;
  prefix_tokens: number;
  suffix_tokens: number;
  context: Item[];
  why_empty: string | null;
  blank: boolean;
  packed_by: "client" | "server";
}

interface Item {
  path: string;
  first_line: number;
  last_line: number;
  score: number;
  strategy: string;
  /** Unknown where the server packed. */
  tokens: number | null;
}

export interface Link {
  /** Line of the report, counted from zero. */
  line: number;
  path: string;
  root: string;
  /** Line of the file, counted from one. */
  target: number;
}

const REASONS: Record<string, string> = {
  infill: "shares rare names with the lines round the caret;\nimports, definitions and recent files count more",
  bm25: "shares rare words with the lines round the caret",
  iou: "has lines in common with what stands before the caret, in the same folder",
  iou_exact: "has most names in common with the lines round the caret",
  iou_lines: "has most lines in common with the lines round the caret",
  path_distance: "lies nearest to the file by its path",
  rag: "has most words in common with the lines round the caret,\namong the nearest files",
};

/** Return the report's text and links. */
export function report(last: LastCompletion | null, counts: Counts): { text: string; links: Link[] } {
  if (!last) return { text: "Nothing was packed yet: type in a file, then look here again.\n", links: [] };
  const head = [
    `What was packed for the last completion${last.blank ? ", which was blank" : ""}`,
    "",
    `File      ${last.path}`,
    `Model     ${last.model}`,
    `Packed    ${last.packed_by === "server" ? "by the server, from its copy of the project" : "on this machine"}`,
    `Prompt    ${tokens(last)}`,
    `Latency   ${latency(last)}`,
    `So far    ${counts.offered} offered, ${counts.accepted} accepted, ${counts.rejected} passed over`,
    "",
  ].flatMap((part) => part.split("\n"));
  if (last.context.length === 0) {
    return { text: [...head, `No pieces of other files: ${last.why_empty ?? "none was found"}.`, ""].join("\n"), links: [] };
  }
  head.push("Pieces of other files, the most relevant first (it stands last in the prompt):", "");
  head.push(row("tokens", "score", "strategy", "place"));
  const best = [...last.context].reverse();
  const rows = best.map((item) =>
    row(item.tokens?.toString() ?? "-", score(item.score), item.strategy, `${item.path}:${item.first_line}-${item.last_line}`),
  );
  const links = best.map((item, number) => ({
    line: head.length + number,
    path: item.path,
    root: last.root ?? "",
    target: item.first_line,
  }));
  const reasons = [...new Set(best.map((item) => item.strategy))].flatMap((name) =>
    REASONS[name] ? `${name}: ${REASONS[name]}.`.split("\n") : [],
  );
  return { text: [...head, ...rows, "", ...reasons, ""].join("\n"), links: last.root ? links : [] };
}

function row(...[first, second, third, place]: [string, string, string, string]): string {
  return `${first.padStart(8)}${second.padStart(9)}  ${third.padEnd(14)}${place}`;
}

function score(value: number): string {
  return value.toPrecision(3);
}

function tokens(last: LastCompletion): string {
  const rest = last.context.length > 0 ? last.prompt_tokens - last.prefix_tokens - last.suffix_tokens : 0;
  const counted = last.packed_by === "client";
  const context = counted ? last.context.reduce((sum, item) => sum + (item.tokens ?? 0), 0) : rest;
  const parts = `${last.prefix_tokens} before the caret, ${last.suffix_tokens} after, ${context} of other files`;
  return `${last.prompt_tokens} of at most ${last.max_prompt_tokens} tokens\n          ${parts}`;
}

function latency(last: LastCompletion): string {
  const { packing, server, first_token: first } = last.timing_ms;
  const generated = first === undefined ? "" : ` (${Math.round(first)} to the first token)`;
  return `${Math.round(packing)} ms ranking and packing, ${Math.round(server)} ms server${generated}`;
}
