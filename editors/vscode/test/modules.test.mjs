// The modules that do without VS Code, as `npm run build` bundles them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Offers } from "../dist/test/offers.mjs";
import { report } from "../dist/test/report.mjs";

/** Let offers see some calls, and return what was counted and told. */
function after(...calls) {
  let told = 0;
  const offers = new Offers(() => (told += 1));
  for (const [name, ...values] of calls) offers[name](...values);
  assert.equal(told, offers.counts.rejected);
  return offers.counts;
}

const OFFER = ["offer", "a", 4, "net(x)"];
const CASES = {
  "accepted by Tab": [[["changed", "a", 4, 0, "net(x)"], ["moved", "a", 10], ["accepted"]], [1, 1, 0]],
  "accepted word by word": [[["changed", "a", 4, 0, "net"], ["moved", "a", 7], ["offer", "a", 7, "(x)"], ["changed", "a", 7, 0, "(x)"], ["accepted"]], [1, 1, 0]],
  "accepted after its first word, which VS Code writes again": [[["changed", "a", 4, 0, "net"], ["moved", "a", 7], ["changed", "a", 4, 3, "net(x)"], ["accepted"]], [1, 1, 0]],
  "typed by hand": [[..."net(x)"].flatMap((char, number) => [["changed", "a", 4 + number, 0, char], ["moved", "a", 5 + number]]), [1, 0, 0]],
  "something else typed": [[["changed", "a", 4, 0, "z"], ["moved", "a", 5]], [1, 0, 1]],
  "something else after its beginning": [[["changed", "a", 4, 0, "ne"], ["changed", "a", 6, 0, "w"]], [1, 0, 1]],
  "deleted back": [[["changed", "a", 3, 1, ""]], [1, 0, 1]],
  "caret moved away": [[["moved", "a", 0]], [1, 0, 1]],
  "gone to another file": [[["moved", "b", 4]], [1, 0, 1]],
  "edited in another file": [[["changed", "b", 4, 0, "z"]], [1, 0, 0]],
  "offered again": [[OFFER, OFFER], [1, 0, 0]],
  "offered elsewhere": [[["offer", "a", 9, "x"]], [2, 0, 1]],
};
for (const [name, [calls, [offered, accepted, rejected]]] of Object.entries(CASES)) {
  test(`an offer that is ${name}`, () => assert.deepEqual(after(OFFER, ...calls), { offered, accepted, rejected }));
}

const LAST = {
  path: "src/main.py", root: "/work", model: "tiny", timing_ms: { packing: 3.2, server: 120, first_token: 80 }, latency_ms: 200,
  prompt_tokens: 300, max_prompt_tokens: 512, prefix_tokens: 20, suffix_tokens: 10, why_empty: null, blank: false,
  packed_by: "client",
  context: [
    { path: "far.py", first_line: 1, last_line: 9, score: 0.5, strategy: "infill", tokens: 40 },
    { path: "src/near file.py", first_line: 11, last_line: 30, score: 12.345, strategy: "infill", tokens: 200 },
  ],
};
const COUNTS = { offered: 3, accepted: 1, rejected: 1 };

test("the report lists the best piece first and leads to its lines", () => {
  const { text, links } = report(LAST, COUNTS);
  const lines = text.split("\n");
  assert.match(lines[links[0].line], /200 +12\.3 +infill +src\/near file\.py:11-30/);
  assert.match(lines[links[1].line], /far\.py:1-9/);
  assert.deepEqual(links[0], { line: links[0].line, path: "src/near file.py", root: "/work", target: 11 });
  assert.match(text, /300 of at most 512 tokens\n +20 before the caret, 10 after, 240 of other files/);
});

test("the report says who packed; a server counts no tokens of pieces", () => {
  assert.match(report(LAST, COUNTS).text, /Packed +on this machine/);
  const context = LAST.context.map((item) => ({ ...item, tokens: null }));
  const { text, links } = report({ ...LAST, context, packed_by: "server" }, COUNTS);
  assert.match(text, /Packed +by the server, from its copy of the project/);
  assert.match(text.split("\n")[links[0].line], /- +12\.3 +infill +src\/near file\.py:11-30/);
  assert.match(text, /20 before the caret, 10 after, 270 of other files/);
});

test("the report says why nothing was packed, and when nothing was asked yet", () => {
  const { text, links } = report({ ...LAST, context: [], why_empty: "there are no candidates" }, COUNTS);
  assert.match(text, /No pieces of other files: there are no candidates\./);
  assert.deepEqual(links, []);
  assert.match(report(null, COUNTS).text, /Nothing was packed yet/);
  assert.deepEqual(report({ ...LAST, root: null }, COUNTS).links, []);
});
