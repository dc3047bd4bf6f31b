// Drive the extension in code-server while its projects are kept on the server:
// node server-mode.mjs VSIX PROGRAM URL SUGGESTION PROJECT SCRATCH
// The arguments are those of browser.mjs, and PROJECT has helper.py besides. Who starts this script operates the server:
// for each line `? WHAT` on standard output they do it, and write a line with the answer in JSON to standard input:
// `files` (the paths on the server), `text` (that of helper.py there), `prompt` (the last one), `stop`, `start`, `lock`
// (start again and ask for keys; the answer is a valid one).

import assert from "node:assert/strict";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { open, run, until } from "./code-server.mjs";

const [vsix, program, url, suggestion, project, scratch] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Have the operator do something and return the answer. */
async function operator(what) {
  console.log(`? ${what}`);
  return JSON.parse((await lines.next()).value);
}

const settings = { "infill.path": program, "infill.url": url, "infill.workspace": "server" };
const server = await open({ vsix, project, scratch, settings });
const { page, status, suggests } = server;
const FILES = ["helper.py", "main.py"];

/** Wait until the server has the whole project. */
async function synchronised() {
  await until(async () => (await operator("files")).join() === FILES.join(), 60_000);
  assert.deepEqual(await operator("files"), FILES);
}

/** Type a new line in main.py that asks for a completion. */
async function asks(name) {
  await page.keyboard.press("Control+End");
  await page.keyboard.press("Enter");
  await page.keyboard.type(`${name} = `);
}

/** Wait until the tooltip in the status bar has a text. */
async function says(text) {
  await status.hover();
  await page.locator(".monaco-hover", { hasText: text }).first().waitFor();
  await page.mouse.move(400, 400);
}

/** Wait until the entry in the status bar is called `name`. */
const shows = (name) => status.getByRole("button", { name }).waitFor();

async function signIn(key) {
  await server.command("Infill: Sign In");
  await page.locator(".quick-input-widget input[type=password]").fill(key);
  await page.keyboard.press("Enter");
}

const tests = {
  async "sends the project once, and says so"() {
    await shows("Infill: ready");
    await synchronised();
    await says("2 files on the server");
  },

  async "shows ghost text from a prompt that the server packed"() {
    await server.file("main.py");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("= ");
    await suggests(suggestion);
    assert.match(await operator("prompt"), /def net_price/);
    await page.screenshot({ path: join(scratch, "ghost.png") });
    await page.keyboard.press("Tab");
    await server.save();
  },

  async "sends a file that is saved"() {
    await server.file("helper.py");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("gross_price = round");
    await page.keyboard.press("Escape");
    await server.save();
    await until(async () => /gross_price = round$/.test(await operator("text")), 20_000);
    assert.match(await operator("text"), /gross_price = round$/);
    await server.file("main.py");
    await asks("second");
    await suggests(suggestion);
    assert.match(await operator("prompt"), /gross_price = round/);
    await server.command("Infill: Show What Was Packed and Why");
    await until(async () => /by the server, from its copy/.test(await server.report()), 10_000);
    assert.match(await server.report(), /Packed +by the server, from its copy of the project/);
    assert.match(await server.report(), /helper\.py:\d+-\d+/);
  },

  async "sends everything again to a server that has restarted"() {
    await operator("stop");
    await operator("start");
    await server.file("main.py");
    await asks("third");
    await suggests(suggestion);
    await synchronised();
    await shows("Infill: ready");
  },

  async "says that the server is away, and recovers while nobody types"() {
    await operator("stop");
    await asks("fourth");
    await shows("Infill: no completions, no server");
    await page.screenshot({ path: join(scratch, "away.png") });
    await operator("start");
    await shows("Infill: ready");
    await synchronised();
    await says("2 files on the server");
    await asks("fifth");
    await suggests(suggestion);
  },

  async "asks for a key, and says that one is wrong"() {
    const key = await operator("lock");
    await asks("sixth");
    await shows("Infill: no completions, sign in");
    await page.getByText("asks for a key, or refuses yours").first().waitFor();
    assert.deepEqual(await operator("files"), []);
    await signIn("wrong");
    await shows("Infill: starting");
    await shows("Infill: no completions, sign in");
    assert.deepEqual(await operator("files"), []);
    await page.screenshot({ path: join(scratch, "key.png") });
    await signIn(key);
    await shows("Infill: ready");
    await synchronised();
    await page.keyboard.press("Control+End");
    await asks("seventh");
    await suggests(suggestion);
  },
};

await run(server, tests, scratch);
process.stdin.destroy();
