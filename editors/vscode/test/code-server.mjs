// code-server with the extension, and Chromium on it.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const QUIET = {
  "security.workspace.trust.enabled": false,
  "workbench.startupEditor": "none",
  "workbench.tips.enabled": false,
  "telemetry.telemetryLevel": "off",
  "window.commandCenter": false,
  "workbench.layoutControl.enabled": false,
  "editor.minimap.enabled": false,
  "chat.commandCenter.enabled": false,
  "extensions.autoCheckUpdates": false,
  "git.enabled": false,
  "python.languageServer": "None",
};
// VS Code has no key for this one.
const KEYS = [
  { key: "ctrl+alt+right", command: "editor.action.inlineSuggest.acceptNextLine", when: "inlineSuggestionVisible" },
];

/** Install `vsix` into a fresh code-server, open `project` with `settings`, and return what a test does there. */
export async function open({ vsix, project, scratch, settings = {}, size = { width: 1280, height: 800 } }) {
  const folder = execFileSync("sh", [join(here, "code-server.sh")], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim();
  const entry = join(folder, "node_modules/code-server/out/node/entry.js");
  const data = join(scratch, "data");
  mkdirSync(join(data, "User"), { recursive: true });
  // code-server has no file of machine settings of its own: those of the user stand for them.
  mkdirSync(join(data, "Machine"), { recursive: true });
  const set = (values) => {
    const text = JSON.stringify({ ...QUIET, ...values });
    for (const kind of ["User", "Machine"]) writeFileSync(join(data, kind, "settings.json"), text);
  };
  set(settings);
  writeFileSync(join(data, "User", "keybindings.json"), JSON.stringify(KEYS));
  const folders = ["--user-data-dir", data, "--extensions-dir", join(scratch, "extensions"), "--config", join(scratch, "config.yaml")];
  execFileSync("node", [entry, ...folders, "--install-extension", vsix], { stdio: ["ignore", "ignore", "inherit"] });
  const port = await freePort();
  const options = ["--auth", "none", "--bind-addr", `127.0.0.1:${port}`, "--disable-telemetry", "--disable-update-check"];
  const child = spawn("node", [entry, ...folders, ...options], { stdio: ["ignore", "ignore", "inherit"], detached: true });
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  const context = await browser.newContext({ viewport: size, colorScheme: "light" });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const address = `http://127.0.0.1:${port}/?folder=${encodeURIComponent(project)}`;
  await untilUp(address);
  await page.goto(address);
  await page.locator(".monaco-workbench").waitFor();

  const ghost = page.locator(".ghost-text-decoration, .ghost-text-decoration-preview, .suggest-preview-text");
  /** Return the ghost text of the editor, its rows joined. */
  const ghostText = async () => {
    const parts = await page.locator(".monaco-editor [class*='ghost-text-decoration']").allInnerTexts();
    return parts.join("").replace(/\u00a0|·/g, " ");
  };

  return {
    page,
    set,
    ghost,
    ghostText,
    status: page.locator("[id='infill.infill.infill']"),
    /** Wait until the ghost text is `text`. */
    async suggests(text) {
      await ghost.first().waitFor();
      await until(async () => (await ghostText()) === text, 10_000);
      assert.equal(await ghostText(), text);
    },
    async command(name) {
      await page.keyboard.press("F1");
      const input = page.locator(".quick-input-widget input.input");
      await input.waitFor();
      await input.fill(`>${name}`);
      await page.locator(".quick-input-list .monaco-list-row", { hasText: name }).first().click();
    },
    async file(name) {
      await page.locator(`.explorer-folders-view .monaco-list-row[aria-label^="${name}"]`).dblclick();
      await page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor();
      await page.locator(`.monaco-editor[data-uri$="/${name}"] .view-lines`).first().click();
    },
    save: () => page.keyboard.press("Control+s"),
    /** The report on what was packed, as far as it is on the screen. */
    async report() {
      const lines = page.locator(".monaco-editor[data-uri^='infill-packed:'] .view-line");
      const rows = await lines.evaluateAll((nodes) => {
        const top = (node) => parseInt(node.style.top, 10);
        return nodes.sort((one, other) => top(one) - top(other)).map((node) => node.textContent);
      });
      return rows.join("\n").replace(/\u00a0/g, " ");
    },
    async close() {
      await browser.close();
      process.kill(-child.pid, "SIGTERM");
    },
  };
}

/** Run the tests by name, one after the other, until one fails; then close the server. */
export async function run(server, tests, scratch) {
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok    ${name}`);
    } catch (error) {
      console.log(`FAILED ${name}\n${error.stack}`);
      await server.page.screenshot({ path: join(scratch, "failed.png") });
      process.exitCode = 1;
      break;
    }
  }
  await server.close();
}

/** Wait until `condition` holds. */
export async function until(condition, timeout = 30_000) {
  for (const end = Date.now() + timeout; Date.now() < end; ) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

async function untilUp(address) {
  const up = await until(async () => (await fetch(address).catch(() => undefined))?.ok, 60_000);
  if (!up) throw new Error(`code-server does not answer at ${address}`);
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
