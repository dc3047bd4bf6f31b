// Bundle the page into serving/transformer/static. The bundle names the digest of its sources, which a test checks.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "..", "serving", "transformer", "static");
const sources = ["build.mjs", "package.json", "package-lock.json", ...readdirSync(join(here, "src")).map((name) => `src/${name}`)];

const digest = createHash("sha256");
for (const name of sources.sort()) digest.update(`${name}\0`).update(readFileSync(join(here, name))).update("\0");
const banner = `/* Infill's page, made by web/build.mjs from sources with sha256:${digest.digest("hex")} */`;

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
const result = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.ts", "page-style": "src/page.css" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: banner },
  metafile: true,
  write: false,
});
for (const file of result.outputFiles) {
  writeFileSync(file.path.replace("page-style.css", "page.css"), file.contents);
}
for (const name of ["index.html", "icon.svg"]) writeFileSync(join(target, name), readFileSync(join(here, "src", name)));
writeFileSync(join(target, "licences.txt"), licences(Object.keys(result.metafile.inputs)));

/** The licence texts of the packages that are part of the bundle. */
function licences(inputs) {
  const packages = inputs.flatMap((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.slice(1) ?? []);
  return [...new Set(packages)]
    .sort()
    .map((name) => {
      const folder = join(here, "node_modules", name);
      const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      const text = readFileSync(join(folder, readdirSync(folder).find((file) => /^licen[cs]e/i.test(file))), "utf8");
      return `${name} ${version} (${license})\n\n${text.trim()}\n`;
    })
    .join("\n----\n\n");
}
