// The key for the server: in VS Code's secret storage, one for each server, and nowhere else.

import { type SecretStorage, window } from "vscode";
import { serverUrl } from "./settings.js";

/** Name of the secret: a key is never sent to another server than the one that it was entered for. */
function place(): string {
  try {
    return `infill.key:${new URL(serverUrl()).origin}`;
  } catch {
    return "infill.key:";
  }
}

export class Account {
  constructor(private readonly secrets: SecretStorage) {}

  async key(): Promise<string | undefined> {
    return this.secrets.get(place());
  }

  /** Ask for a key and keep it. Return whether there is a new one. */
  async signIn(): Promise<boolean> {
    const key = await window.showInputBox({
      title: "Infill: Sign In",
      prompt: `Key for ${serverUrl()}. It is kept in VS Code's secret storage.`,
      password: true,
      ignoreFocusOut: true,
      validateInput: (text) => (/^[!-~]*$/.test(text.trim()) ? undefined : "A key has printable ASCII characters, no blanks."),
    });
    if (!key?.trim()) return false;
    await this.secrets.store(place(), key.trim());
    return true;
  }

  /** Forget the key. Return whether there was one. */
  async signOut(): Promise<boolean> {
    const had = (await this.key()) !== undefined;
    await this.secrets.delete(place());
    void window.showInformationMessage(had ? `Infill: signed out of ${serverUrl()}.` : `Infill: there is no key for ${serverUrl()}.`);
    return had;
  }
}
