// The menu of the status bar, and switching on and off.

import { commands, ConfigurationTarget, type QuickPickItem, type TextDocument, window, workspace } from "vscode";
import { completes, SECTION } from "./settings.js";

/** Turn completions on or off in all languages. */
export async function toggle(): Promise<void> {
  await set("enabled", !completes());
}

/** Turn completions on or off in the language of the current document. */
export async function toggleLanguage(): Promise<void> {
  const document = window.activeTextEditor?.document;
  if (!document) {
    void window.showInformationMessage("Infill: open a file of the language first.");
    return;
  }
  const on = !completes(document);
  await set("enabled", on, document);
  const listed = workspace.getConfiguration(SECTION).get<string[]>("languages", []);
  if (on && listed.length > 0 && !listed.includes(document.languageId)) {
    await set("languages", [...listed, document.languageId]);
  }
}

/** Write a setting where the one that holds now stands: in the workspace, or else in the user's settings. */
async function set(name: string, value: unknown, language?: TextDocument): Promise<void> {
  const configuration = workspace.getConfiguration(SECTION, language);
  const known = configuration.inspect(name);
  const inWorkspace = language ? known?.workspaceLanguageValue : known?.workspaceValue;
  const target = inWorkspace === undefined ? ConfigurationTarget.Global : ConfigurationTarget.Workspace;
  await configuration.update(name, value, target, language !== undefined);
}

export async function showMenu(signedIn: boolean): Promise<void> {
  const document = window.activeTextEditor?.document;
  const entries: (QuickPickItem & { command: string })[] = [
    { label: completes() ? "$(circle-slash) Turn off" : "$(sparkle) Turn on", command: "infill.toggle" },
    ...(document && completes()
      ? [{
          label: `${completes(document) ? "$(circle-slash) Turn off" : "$(sparkle) Turn on"} for ${document.languageId}`,
          command: "infill.toggleLanguage",
        }]
      : []),
    { label: "$(list-ordered) Show what was packed and why", command: "infill.showPacked" },
    { label: "$(output) Show log", command: "infill.showLog" },
    { label: "$(debug-restart) Restart", command: "infill.restart" },
    signedIn
      ? { label: "$(sign-out) Sign out", command: "infill.signOut" }
      : { label: "$(key) Sign in", command: "infill.signIn" },
    { label: "$(gear) Settings", command: "infill.openSettings" },
  ];
  const entry = await window.showQuickPick(entries, { title: "Infill" });
  if (entry?.command === "infill.openSettings") await openSettings();
  else if (entry) await commands.executeCommand(entry.command);
  // The focus would go back to the status bar, where the next blank or line break opened the menu again.
  if (entry?.command.startsWith("infill.toggle")) await commands.executeCommand("workbench.action.focusActiveEditorGroup");
}

export async function openSettings(name = ""): Promise<void> {
  await commands.executeCommand("workbench.action.openSettings", name || "@ext:infill.infill");
}
