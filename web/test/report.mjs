// Filter the report at URL in Chromium without scripts, as tests/unit/report/test_report_browser.py starts it.

import assert from "node:assert/strict";
import { AXE, browser } from "./chromium.mjs";

const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
await page.goto(process.argv[2]);
const shown = () => page.locator("#holes article:visible");
const all = await shown().count();
assert.equal(all, 40);
assert.match(await shown().first().locator(".badge").innerText(), /^worse by 1\.00$/);

await page.getByLabel("Verdict").selectOption("worse");
const worse = await shown().count();
assert.ok(worse > 0 && worse < all);
for (const badge of await shown().locator(".badge").all()) assert.match(await badge.innerText(), /^worse by /);
await page.getByLabel("Language").selectOption("go");
assert.ok((await shown().count()) < worse);
await page.getByLabel("Verdict").selectOption("all");
assert.ok((await shown().count()) > 0);
await page.getByLabel("Language").selectOption("all");
assert.equal(await shown().count(), all);
await context.close();

const scripted = await (await browser.newContext()).newPage();
await scripted.goto(process.argv[2]);
await scripted.evaluate(AXE);
const { violations } = await scripted.evaluate(() => axe.run("#holes"));
assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
await browser.close();
