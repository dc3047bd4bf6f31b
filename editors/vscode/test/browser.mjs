// Drive the extension in code-server: node browser.mjs VSIX PROGRAM URL SUGGESTION PROJECT SCRATCH
// PROGRAM is `infill`, URL a server whose answer is always SUGGESTION (one line, more than one word), PROJECT a folder with
// main.py, whose last line is the place to complete at, SCRATCH an empty folder. CHROMIUM names the browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { open, run, until } from "./code-server.mjs";

const [vsix, program, url, suggestion, project, scratch] = process.argv.slice(2);
const settings = { "infill.path": program, "infill.url": url };
const server = await open({ vsix, project, scratch, settings });
const { page, ghost, status, suggests } = server;

const lastLine = () => readFileSync(join(project, "main.py"), "utf8").split("\n").at(-1);
const before = lastLine();
const indent = /^ */.exec(before)[0];

/** Save, and compare the last line of the file on the disk. */
async function saved(line) {
  await server.save();
  await until(() => lastLine() === line, 10_000);
  assert.equal(lastLine(), line);
}

const tests = {
  async "shows that it is ready"() {
    await status.getByRole("button", { name: "Infill: ready" }).waitFor();
  },

  async "shows ghost text while one types, and Tab accepts it"() {
    await server.file("main.py");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("= ");
    await suggests(suggestion);
    await page.keyboard.press("Tab");
    await saved(`${before}= ${suggestion}`);
    assert.match(await status.innerText(), /Infill \d+ ms/);
  },

  async "accepts by the word, and by the line"() {
    await page.keyboard.press("Enter");
    await page.keyboard.type("again = ");
    await suggests(suggestion);
    await page.keyboard.press("Control+ArrowRight");
    await suggests(suggestion.slice(/^\s*(\w+|[^\w\s]+)/.exec(suggestion)[0].length));
    await page.keyboard.press("Control+Alt+ArrowRight");
    await saved(`${indent}again = ${suggestion}`);
  },

  async "counts what is passed over, and shows what was packed and why"() {
    await page.keyboard.press("Enter");
    await page.keyboard.type("third = ");
    await suggests(suggestion);
    await page.keyboard.type("~");
    await server.command("Infill: Show What Was Packed and Why");
    await page.getByText("What was packed for the last completion").first().waitFor();
    await until(async () => /passed over/.test(await server.report()), 10_000);
    const text = await server.report();
    assert.match(text, /File +main\.py/);
    assert.match(text, /Prompt +\d+ of at most \d+ tokens/);
    assert.match(text, /Latency +\d+ ms ranking and packing, \d+ ms server/);
    assert.match(text, /helper\.py:1-\d+/);
    assert.match(text, /[1-9]\d* offered, [12] accepted, [1-9]\d* passed over/);
  },

  async "turns off for a language and on again from the status bar"() {
    await server.file("main.py");
    await page.keyboard.press("Control+End");
    await status.click();
    await page.locator(".quick-input-list").getByText("Turn off for python").click();
    await status.getByRole("button", { name: "Infill: off for python" }).waitFor();
    await page.keyboard.press("Enter");
    await page.keyboard.type("fourth = ");
    await page.waitForTimeout(1_000);
    assert.equal(await ghost.count(), 0);
    await status.click();
    await page.locator(".quick-input-list").getByText("Turn on for python").click();
    await status.getByRole("button", { name: "Infill: ready" }).waitFor();
    await page.keyboard.type(" ");
    await suggests(suggestion);
  },

  async "keeps the key that one signs in with, and sends it"() {
    await server.command("Infill: Sign In");
    await page.locator(".quick-input-widget input[type=password]").fill("s3cret");
    await page.keyboard.press("Enter");
    await status.getByRole("button", { name: "Infill: starting" }).waitFor();
    await status.getByRole("button", { name: "Infill: ready" }).waitFor();
    await page.keyboard.press("Enter");
    await page.keyboard.type("fifth = ");
    await suggests(suggestion);
  },

  async "says once that no server answers"() {
    server.set({ ...settings, "infill.url": "http://127.0.0.1:9" });
    await status.getByRole("button", { name: "Infill: no completions" }).waitFor();
    await page.keyboard.press("Enter");
    await page.keyboard.type("sixth = ", { delay: 200 });
    const told = page.locator(".notification-list-item", { hasText: "no server answers at http://127.0.0.1:9" });
    assert.equal(await told.count(), 1);
    server.set(settings);
    await status.getByRole("button", { name: "Infill: ready" }).waitFor();
  },

  async "says how to install what is missing"() {
    server.set({ ...settings, "infill.path": "infill-that-is-not-there" });
    await page.getByText("install it with: pip install 'infill[lsp]'").first().waitFor();
    await status.getByRole("button", { name: "Infill: the language server does not run" }).waitFor();
    server.set(settings);
    await status.getByRole("button", { name: "Infill: ready" }).waitFor();
  },
};

await run(server, tests, scratch);
