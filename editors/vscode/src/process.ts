// The process of `infill lsp`.

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { homedir } from "node:os";

export const PIP = "pip install 'infill[lsp]'";
const MAX_ERRORS = 4_000;

export class NotInstalledError extends Error {}

export interface Launched {
  readonly child: ChildProcessWithoutNullStreams;
  /** The last line that it wrote to standard error. */
  lastWords(): string;
}

/** Start `program`, with the key in its environment, where other users of the machine do not see it. */
export async function launch(program: string, url: string, key: string | undefined): Promise<Launched> {
  const env = { ...process.env, ...(key === undefined ? {} : { INFILL_API_KEY: key }) };
  // Not in the workspace: nothing that lies there is to be found as a program or a module.
  const child = spawn(program, ["lsp", "--url", url], { cwd: homedir(), env, windowsHide: true });
  let errors = "";
  child.stderr.on("data", (data: Buffer) => {
    errors = (errors + data.toString()).slice(-MAX_ERRORS);
  });
  try {
    await once(child, "spawn");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT") {
      throw new NotInstalledError(`the program '${program}' was not found; install it with: ${PIP}`);
    }
    throw new Error(`'${program}' cannot be started (${code}): check the setting infill.path`);
  }
  return { child, lastWords: () => errors.trim().split("\n").at(-1) ?? "" };
}
