// The report as a read-only document, kept up to date while it is open.

import { join } from "node:path";
import {
  type Disposable, DocumentLink, EventEmitter, languages, Range, type TextDocument, Uri, ViewColumn, window, workspace,
} from "vscode";
import type { Counts } from "./offers.js";
import { type LastCompletion, type Link, report } from "./report.js";

const SCHEME = "infill-packed";
const ADDRESS = Uri.from({ scheme: SCHEME, path: "/What was packed" });

export class PackedView implements Disposable {
  private readonly changes = new EventEmitter<Uri>();
  private readonly parts: Disposable[];
  private links: Link[] = [];

  constructor(
    private readonly ask: () => Promise<LastCompletion | null>,
    private readonly counts: Counts,
  ) {
    const content = { onDidChange: this.changes.event, provideTextDocumentContent: () => this.text() };
    const links = { provideDocumentLinks: (document: TextDocument) => this.linksIn(document) };
    this.parts = [
      this.changes,
      workspace.registerTextDocumentContentProvider(SCHEME, content),
      languages.registerDocumentLinkProvider({ scheme: SCHEME }, links),
    ];
  }

  /** Show it beside the file that one types in. */
  async show(): Promise<void> {
    this.refresh();
    const document = await workspace.openTextDocument(ADDRESS);
    await window.showTextDocument(document, { viewColumn: ViewColumn.Beside, preserveFocus: true, preview: false });
  }

  /** There is something new to tell. */
  refresh(): void {
    if (workspace.textDocuments.some((document) => document.uri.scheme === SCHEME)) this.changes.fire(ADDRESS);
  }

  dispose(): void {
    for (const part of this.parts) part.dispose();
  }

  private async text(): Promise<string> {
    const { text, links } = report(await this.ask(), this.counts);
    this.links = links;
    return text;
  }

  private linksIn(document: TextDocument): DocumentLink[] {
    return this.links.flatMap(({ line, path, root, target }) => {
      if (line >= document.lineCount) return [];
      const { text } = document.lineAt(line);
      const start = text.lastIndexOf(path);
      const place = Uri.file(join(root, path)).with({ fragment: `L${target}` });
      return start < 0 ? [] : [new DocumentLink(new Range(line, start, line, text.length), place)];
    });
  }
}
