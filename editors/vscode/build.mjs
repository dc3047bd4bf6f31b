// Bundle the extension into dist/, with the licences of what it holds, and the modules that the tests read.

import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const shared = { absWorkingDir: here, bundle: true, platform: "node", target: "node20", legalComments: "none" };

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
const { metafile } = await build({
  ...shared,
  entryPoints: ["src/extension.ts"],
  outfile: "dist/extension.js",
  format: "cjs",
  external: ["vscode"],
  minify: true,
  metafile: true,
});
await build({ ...shared, entryPoints: ["src/offers.ts", "src/report.ts"], outdir: "dist/test", format: "esm", outExtension: { ".js": ".mjs" } });
writeFileSync(join(dist, "licences.txt"), licences(Object.keys(metafile.inputs)));
copyFileSync(join(here, "../../LICENSE"), join(here, "LICENSE"));

/** The licence texts of the packages that are part of the bundle. */
function licences(inputs) {
  const packages = inputs.flatMap((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []);
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
