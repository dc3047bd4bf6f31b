// The settings of the section `infill`, and what the language server is told of them.

import { homedir } from "node:os";
import { join } from "node:path";
import { env, type TextDocument, workspace } from "vscode";

export const SECTION = "infill";

/** Settings that a running language server cannot change: it is started again. */
export const AT_START = ["infill.url", "infill.path"];

function setting<T>(name: string, fallback: T): T {
  return workspace.getConfiguration(SECTION).get(name, fallback);
}

/** The program to start; only the user's own settings can name it (scope `machine`). */
export function program(): string {
  const path = setting("path", "").trim() || "infill";
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}

export function serverUrl(): string {
  return setting("url", "").trim();
}

/** The settings as `infill lsp` reads them. It is asked only for documents that are to be completed, so it is never off. */
export function forServer(): Record<string, unknown> {
  const names = ["debounceMs", "maxTokens", "timeoutMs", "workspace"];
  return {
    url: serverUrl(),
    telemetry: env.isTelemetryEnabled ? setting("telemetry", "off") : "off",
    ...Object.fromEntries(names.map((name) => [name, setting<unknown>(name, null)])),
  };
}

/** Whether to complete in a document; without one, whether to complete at all. */
export function completes(document?: TextDocument): boolean {
  if (!document) return setting("enabled", true);
  const languages = setting<string[]>("languages", []);
  const enabled = workspace.getConfiguration(SECTION, document).get("enabled", true);
  return enabled && (languages.length === 0 || languages.includes(document.languageId));
}
