// What the pages' tests share: Chromium, axe's source, and pages whose errors and requests to other places are noted.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
/** Errors in the console and requests to other places, of all pages. */
export const problems = [];

/** Return a function that opens a page at `url` and waits for what `ready` locates in it. */
export const opener = (url, ready) => async (options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || problems.push(`asked ${request.url()}`));
  await page.goto(url);
  await ready(page).waitFor();
  return page;
};
