// What becomes of a suggestion, as far as VS Code's stable API tells.
//
// VS Code runs a suggestion's command when the rest of it is accepted. That one was passed over is inferred: the user types
// something else, or goes elsewhere. Texts and offsets are those of the document, in UTF-16 units.

interface Offer {
  readonly document: string;
  readonly text: string;
  /** Where the rest of the text belongs. */
  caret: number;
  /** How much of the text stands in the document. */
  taken: number;
}

export interface Counts {
  offered: number;
  accepted: number;
  rejected: number;
}

export class Offers {
  readonly counts: Counts = { offered: 0, accepted: 0, rejected: 0 };
  private open: Offer | undefined;

  constructor(private readonly onRejected: () => void) {}

  /** VS Code was handed a suggestion. The rest of the open one, or another in its place, is no new offer. */
  offer(document: string, caret: number, text: string): void {
    const open = this.open;
    if (open?.document !== document || open.caret !== caret) {
      this.reject();
      this.counts.offered += 1;
    }
    this.open = { document, text, caret, taken: 0 };
  }

  /** A document changed: at `start` stands `text` in place of `removed` units. */
  changed(document: string, start: number, removed: number, text: string): void {
    const open = this.open;
    if (open?.document !== document) return;
    const rest = open.text.slice(open.taken);
    if (removed > 0 && start + removed === open.caret && text.length > removed && text.endsWith(rest)) {
      this.open = undefined; // accepted after a part of it was: VS Code writes that part again
      return;
    }
    if (removed > 0 || start !== open.caret || !open.text.startsWith(text, open.taken)) {
      this.reject();
      return;
    }
    open.taken += text.length;
    open.caret += text.length;
    // All of it stands there: by Tab, whose command comes next, or typed by hand, which counts as neither.
    if (open.taken >= open.text.length) this.open = undefined;
  }

  /** The caret stands at an offset of a document. */
  moved(document: string, caret: number): void {
    if (this.open && (this.open.document !== document || this.open.caret !== caret)) this.reject();
  }

  accepted(): void {
    this.open = undefined;
    this.counts.accepted += 1;
  }

  private reject(): void {
    if (!this.open) return;
    this.open = undefined;
    this.counts.rejected += 1;
    this.onRejected();
  }
}
