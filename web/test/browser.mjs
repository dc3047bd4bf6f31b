// Drive the page at URL in Chromium, as tests/serving/test_page_browser.py starts it: node browser.mjs URL SUGGESTION FOLDER
// The predictor behind it answers every request with SUGGESTION; FOLDER is a project to pick.

import assert from "node:assert/strict";
import { AXE, browser, opener, problems } from "./chromium.mjs";

const [url, suggestion, folder] = process.argv.slice(2);
const open = opener(url, (page) => page.getByText("ready", { exact: true }));

const editor = (page) => page.getByRole("textbox", { name: /^Code of / });
/** The document, without the suggestion, which may come back when its acceptance is undone. */
const text = (page) =>
  editor(page).evaluate((node) => {
    const copy = node.cloneNode(true);
    for (const ghost of copy.querySelectorAll(".cm-ghost")) ghost.remove();
    return [...copy.querySelectorAll(".cm-line")].map((line) => line.textContent).join("\n");
  });
const ghost = (page) => page.locator(".cm-ghost");
const settled = async (page) => page.locator("#live", { hasText: "Suggestion:" }).waitFor({ state: "attached" });
const sent = (page) => page.waitForRequest((request) => request.method() === "POST");

const tests = {
  async "shows a suggestion while typing, which survives typing along it and deleting back"(page) {
    await page.keyboard.type(suggestion[0]);
    await ghost(page).waitFor();
    await settled(page);
    const requests = [];
    page.on("request", (request) => requests.push(request));
    const whole = await ghost(page).innerText();
    await page.keyboard.type(whole.slice(0, 3));
    assert.equal(await ghost(page).innerText(), whole.slice(3));
    for (let key = 0; key < 3; key += 1) await page.keyboard.press("Backspace");
    assert.equal(await ghost(page).innerText(), whole);
    await page.waitForTimeout(400);
    assert.equal(requests.length, 0, "an answer that still holds is not asked for again");
  },

  async "accepts with Tab, by the word with Ctrl+Right, dismisses with Escape"(page) {
    await page.getByRole("button", { name: "Suggest", exact: true }).click();
    await settled(page);
    await page.keyboard.press("Escape");
    assert.equal(await ghost(page).count(), 0);
    const before = await text(page);
    assert.ok(await page.getByRole("button", { name: "Accept", exact: true }).isDisabled());
    await page.keyboard.press("Control+Space");
    await settled(page);
    await page.keyboard.press("Control+ArrowRight");
    const word = /^\s*(\w+|[^\w\s]+)/.exec(suggestion)[0];
    assert.equal(await ghost(page).innerText(), suggestion.slice(word.length));
    await page.keyboard.press("Tab");
    assert.ok((await text(page)).includes(`gross = ${suggestion}`), await text(page));
    for (let step = 0; step < 9 && (await text(page)) !== before; step += 1) await page.keyboard.press("Control+z");
    assert.equal(await text(page), before, "what was accepted can be undone");
  },

  async "shows what was packed, with lines, score and licence, and nothing without context"(page) {
    await page.getByRole("button", { name: "Suggest", exact: true }).click();
    const context = page.getByRole("list", { name: "Packed context" });
    await context.getByText("shop/money.py").waitFor();
    assert.match(await context.innerText(), /lines \d+–\d+, score [\d.e+-]+ \(infill\)/);
    assert.match(await context.innerText(), /Apache-2.0/);
    assert.match(await page.getByRole("table", { name: "Latency" }).innerText(), /Packing[^]*Total[^]*ms/);
    assert.match(await page.getByRole("table", { name: "Tokens" }).innerText(), /Prompt[^]*of at most/);
    const again = sent(page);
    await page.getByLabel("Send project context").uncheck();
    assert.deepEqual((await again).postDataJSON().context, []);
    await page.getByText(/^Nothing was packed:/).waitFor();
    await context.getByText("shop/money.py").waitFor({ state: "detached" });
  },

  async "asks again when a file that was packed is opened, without its own text as context"(page) {
    await page.getByRole("button", { name: "shop/cart.py" }).first().click();
    const asked = sent(page);
    await page.keyboard.type("#");
    const body = (await asked).postDataJSON();
    assert.equal(body.path, "shop/cart.py");
    assert.deepEqual(body.context.map((each) => each.path).sort(), ["shop/invoice.py", "shop/money.py"]);
    assert.deepEqual(body.recent, ["shop/invoice.py"]);
  },

  async "takes a folder, leaves out what is not text, and shows names as text"(page) {
    await page.locator("#folder").setInputFiles(folder);
    await page.getByText(/2 files added; left out: .*1 not text/).waitFor();
    const files = page.getByRole("list", { name: "Files of the project" });
    assert.match(await files.innerText(), /src\/<img src=x onerror=alert\(1\)>\.py/);
    assert.equal(await page.locator("img").count(), 0);
  },

  async "leaves the editor by Escape and Tab, and never waits for an old answer"(page) {
    await page.keyboard.press("Escape");
    await page.keyboard.press("Tab");
    assert.equal(await editor(page).evaluate((node) => node.getRootNode().activeElement === node), false);
    await editor(page).click();
    // The first question is held until the end: only a page that gives it up can show the answer to the second.
    let release, held;
    const released = new Promise((resolve) => (release = resolve));
    const asked = new Promise((resolve) => (held = resolve));
    const signals = await page.evaluateHandle(() => {
      const given = [];
      const real = window.fetch;
      window.fetch = (resource, options) => (given.push(options?.signal), real(resource, options));
      return given;
    });
    await page.route(
      "**/v1/completions",
      async (route) => {
        held();
        await released;
        await route.abort().catch(() => undefined);
      },
      { times: 1 },
    );
    await page.keyboard.press("Control+End");
    await page.keyboard.type("a");
    await asked;
    await page.keyboard.type("b");
    await ghost(page).waitFor();
    assert.deepEqual(await signals.evaluate((given) => given.map((signal) => signal.aborted)), [true, false]);
    release();
    await page.unrouteAll({ behavior: "ignoreErrors" });
  },

  async "asks again when what comes is not what was typed meanwhile"(page) {
    await editor(page).click();
    await page.keyboard.press("Control+End");
    const piece = (text) => `data: ${JSON.stringify({ choices: [{ index: 0, text, finish_reason: null }] })}\n\n`;
    await page.evaluate((first) => {
      const real = window.fetch;
      window.fetch = async () => {
        window.fetch = real;
        const stream = new ReadableStream({ start: (controller) => (window.answer = controller) });
        window.say = (event) => window.answer.enqueue(new TextEncoder().encode(event));
        window.say(first);
        return new Response(stream, { headers: { "content-type": "text/event-stream" } });
      };
    }, piece("al"));
    await page.keyboard.type("v");
    await ghost(page).getByText("al", { exact: true }).waitFor();
    await page.keyboard.type("alu");
    await page.evaluate((next) => window.say(next), piece("id"));
    await ghost(page).getByText(suggestion, { exact: true }).waitFor();
  },

  async "says what is wrong and sends a key when one is asked for"(page) {
    await page.route("**/v1/completions", (route) =>
      route.fulfill({ status: 401, json: { error: { message: "no key" } } }),
    );
    await page.getByRole("button", { name: "Suggest", exact: true }).click();
    await page.getByRole("alert").getByText(/no key/).waitFor();
    await page.unrouteAll({ behavior: "ignoreErrors" });
    problems.splice(0, problems.length, ...problems.filter((problem) => !problem.includes("401")));
    await page.getByLabel(/^Key, if/).fill("secret-key");
    const asked = sent(page);
    await page.getByRole("button", { name: "Suggest", exact: true }).click();
    assert.equal((await asked).headers().authorization, "Bearer secret-key");
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
  },

  async "passes axe in light and dark, wide and narrow"() {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [1280, 400]) {
        const page = await open({ colorScheme, viewport: { width, height: 800 } });
        await page.getByRole("button", { name: "Suggest", exact: true }).click();
        await settled(page);
        await page.evaluate(AXE);
        const { violations } = await page.evaluate(() => axe.run());
        const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
        assert.deepEqual(told, [], `${colorScheme}, ${width} px`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `the page is ${wide} px too wide at ${width} px`);
        await page.context().close();
      }
    }
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  const page = await open();
  try {
    await test(page);
    assert.deepEqual(problems.splice(0), [], "errors in the console, or requests to other places");
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
    problems.length = 0;
  }
  await page.context().close();
}
await browser.close();
process.exit(failed ? 1 : 0);
