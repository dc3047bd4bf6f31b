// The entry in the status bar: what the extension is doing, and how long the last completion took.

import { type Disposable, StatusBarAlignment, type TextDocument, ThemeColor, window } from "vscode";
import { completes } from "./settings.js";

export type State = "starting" | "ready" | "no server" | "no key" | "stopped";

const SHOWN: Record<State, { icon: string; text: string; tooltip: string }> = {
  starting: { icon: "loading~spin", text: "", tooltip: "starting" },
  ready: { icon: "sparkle", text: "", tooltip: "ready" },
  "no server": { icon: "warning", text: " no server", tooltip: "no completions" },
  "no key": { icon: "key", text: " sign in", tooltip: "no completions" },
  stopped: { icon: "error", text: " stopped", tooltip: "the language server does not run" },
};

export class Status implements Disposable {
  private readonly item = window.createStatusBarItem("infill", StatusBarAlignment.Right, 100);
  private state: State = "starting";
  private detail = "";
  private working = 0;
  private milliseconds: number | undefined;

  constructor() {
    this.item.name = "Infill";
    this.item.command = "infill.menu";
    this.update();
    this.item.show();
  }

  /** Show a state; `detail` says more where one hovers. */
  set(state: State, detail = ""): void {
    this.state = state;
    this.detail = detail;
    this.update();
  }

  /** Show that something is going on while `work` does. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.working += 1;
    this.update();
    try {
      return await work();
    } finally {
      this.working -= 1;
      this.update();
    }
  }

  latency(milliseconds: number): void {
    this.milliseconds = Math.round(milliseconds);
    this.update();
  }

  update(): void {
    const off = this.off(window.activeTextEditor?.document);
    const shown = SHOWN[this.state];
    const ready = this.state === "ready";
    const icon = off ? "circle-slash" : ready && this.working > 0 ? "loading~spin" : shown.icon;
    const latency = ready && this.milliseconds !== undefined ? ` ${this.milliseconds} ms` : "";
    const text = off ? " off" : shown.text || latency;
    const doing = off || (ready && this.working > 0 ? "working" : shown.tooltip);
    this.item.text = `$(${icon}) Infill${text}`;
    this.item.tooltip = `Infill: ${doing}${this.detail && !off ? `\n${this.detail}` : ""}\nClick for the menu`;
    this.item.accessibilityInformation = { label: `Infill: ${doing}${text.trim() && !off ? `, ${text.trim()}` : ""}` };
    const alarming = !off && this.state !== "ready" && this.state !== "starting";
    this.item.backgroundColor = alarming ? new ThemeColor("statusBarItem.warningBackground") : undefined;
  }

  dispose(): void {
    this.item.dispose();
  }

  private off(document: TextDocument | undefined): string {
    if (completes(document)) return "";
    return document && completes() ? `off for ${document.languageId}` : "off";
  }
}
