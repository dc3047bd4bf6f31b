// What the user is told, with what can be done about it. The caller sees to it that it is told once.

import { commands, env, window } from "vscode";
import { openSettings } from "./menu.js";
import { NotInstalledError, PIP } from "./process.js";
import type { ServerState } from "./server.js";

type Actions = Record<string, () => unknown>;

const SHOW_LOG: Actions = { "Show Log": () => commands.executeCommand("infill.showLog") };

export async function tellStopped(error: Error): Promise<void> {
  const notInstalled: Actions = {
    "Copy Command": () => env.clipboard.writeText(PIP),
    "Try Again": () => commands.executeCommand("infill.restart"),
    Settings: () => openSettings("infill.path"),
  };
  await tell(error.message, error instanceof NotInstalledError ? notInstalled : SHOW_LOG);
}

export async function tellNoCompletions(state: ServerState): Promise<void> {
  if (state.keyRefused) {
    const signIn: Actions = { "Sign In": () => commands.executeCommand("infill.signIn") };
    await tell(`${state.url} asks for a key, or refuses yours`, signIn);
  } else {
    await tell(state.problem ?? `no completions from ${state.url}`, { Settings: () => openSettings("infill.url"), ...SHOW_LOG });
  }
}

async function tell(sentence: string, actions: Actions): Promise<void> {
  const choice = await window.showWarningMessage(`Infill: ${sentence.replace(/^infill( lsp)?: /, "")}`, ...Object.keys(actions));
  if (choice) await actions[choice]?.();
}
