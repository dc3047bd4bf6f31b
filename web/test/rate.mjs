// Drive the raters' page at URL in Chromium, as tests/unit/rating/test_rating_browser.py starts it:
// node rate.mjs URL ITEMS, where ITEMS is the number of items, at least 5. The first choices are left, equal, right, skip.

import assert from "node:assert/strict";
import { AXE, browser, opener, problems } from "./chromium.mjs";

const [url, count] = process.argv.slice(2);
const open = opener(url, (page) => page.getByRole("heading", { name: /^\d+ of \d+: / }));

const at = (page, number) => page.getByRole("heading", { name: new RegExp(`^${number} of ${count}: `) }).waitFor();
const button = (page, name) => page.getByRole("button", { name });

// Light and dark, wide and narrow, before anything is rated: no violation of axe's rules, and no page that is too wide.
for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    const page = await open({ colorScheme, viewport: { width, height: 800 } });
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`), []);
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, `${width} px`);
    await page.context().close();
  }
}

const page = await open();
assert.equal(await page.locator("img").count(), 0, "code is text");
assert.match(await page.locator("#left").textContent(), /completion begins: [^]* completion ends/);
const inView = await page.locator("#left mark").evaluate((mark) => {
  const box = mark.getBoundingClientRect(), frame = mark.parentElement.getBoundingClientRect();
  return box.top >= frame.top && box.top < frame.bottom;
});
assert.ok(inView, "the completion is in view");

// Keys, until they are switched off; then only buttons, which Enter presses.
await page.keyboard.press("ArrowLeft");
await at(page, 2);
assert.match(await page.getByRole("status").innerText(), /Stored for item 1: left is better/);
await page.keyboard.press("e");
await at(page, 3);
await page.getByLabel("Keys choose").uncheck();
await page.keyboard.press("s");
await button(page, /^Right is better/).focus();
await page.keyboard.press("Enter");
await at(page, 4);
await button(page, /^Skip/).click();
await at(page, 5);

// A server that is gone costs nothing: the page says so and stays where it is.
await page.route("**/items/4", (route) => route.abort());
await button(page, /^Left is better/).click();
await page.getByRole("alert").getByText(/does not answer/).waitFor();
await at(page, 5);
await page.unrouteAll({ behavior: "ignoreErrors" });
problems.splice(0, problems.length, ...problems.filter((problem) => !problem.includes("ERR_FAILED")));

// Back shows the earlier choice; a reload continues where the rater was.
await button(page, /^Back/).click();
await at(page, 4);
assert.equal(await button(page, /^Skip/).getAttribute("aria-pressed"), "true");
await page.reload();
await at(page, 5);
assert.match(await page.locator("#progress-text").innerText(), new RegExp(`^4 of ${count} rated`));
for (let number = 5; number <= Number(count); number += 1) {
  await page.keyboard.press("ArrowRight");
  if (number < Number(count)) await at(page, number + 1);
}
await page.getByRole("heading", { name: "All items are rated" }).waitFor();
await button(page, "Look through my choices").click();
await at(page, 1);
assert.equal(await button(page, /^Left is better/).getAttribute("aria-pressed"), "true");
assert.deepEqual(problems, [], "errors in the console, or requests to other places");
await browser.close();
console.log("ok");
