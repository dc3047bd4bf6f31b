/** Ghost text: ask while the user types, show the answer at the caret, accept or dismiss it. */

import { type Extension, Prec, StateEffect, type Transaction } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  EditorView,
  keymap,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from "@codemirror/view";

const DEBOUNCE_MS = 120;

/** Where the caret was when a completion was asked for. */
export interface Caret {
  prefix: string;
  suffix: string;
}

export interface Options {
  /** Resolves when the answer is whole; `progress` takes its text so far. Rejects when `signal` is aborted. */
  complete(caret: Caret, signal: AbortSignal, progress: (text: string) => void): Promise<void>;
  /** Whether to ask while the user types. */
  automatic(): boolean;
  /** Called when the text that is shown changes; `whole` tells that no more will come. */
  shown(text: string, whole: boolean): void;
}

const changed = StateEffect.define<null>();

class Ghost extends WidgetType {
  constructor(readonly text: string) {
    super();
  }

  override eq(other: Ghost): boolean {
    return other.text === this.text;
  }

  override toDOM(): HTMLElement {
    const span = document.createElement("span");
    span.className = "cm-ghost";
    span.setAttribute("aria-hidden", "true"); // the live region tells it once, when it is whole
    span.textContent = this.text;
    return span;
  }

  override get lineBreaks(): number {
    return this.text.split("\n").length - 1;
  }
}

/** A request and the text that has come of it. */
interface Pending {
  caret: Caret;
  abort: AbortController;
  text: string;
  whole: boolean;
}

class Suggester {
  decorations: DecorationSet = Decoration.none;
  text = "";
  private pending: Pending | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private told = "";

  constructor(
    private readonly view: EditorView,
    private readonly options: Options,
  ) {}

  update(update: ViewUpdate): void {
    const refreshed = update.transactions.some((each) => each.effects.some((effect) => effect.is(changed)));
    if (!update.docChanged && !update.selectionSet && !refreshed) return;
    const rest = this.rest();
    const used = rest === "" && (this.pending?.whole ?? true);
    const typing = update.docChanged && update.transactions.some(isTyping);
    const belied = refreshed && this.pending !== null && rest === null; // what came is not what was typed meanwhile
    if (rest === null) this.cancel();
    if ((typing && (rest === null || used)) || belied) this.schedule();
    this.show(rest ?? "");
  }

  /**
   * What of the answer still stands after the caret, "" for nothing yet; null when the answer does not belong here.
   *
   * The answer survives typing along it and deleting back: the text between the old and the new caret must begin it, or
   * go on from the part that has come. An answer of which nothing has come is given up: what it will say was asked for
   * before the last key.
   */
  private rest(): string | null {
    const { pending } = this;
    const { doc, selection } = this.view.state;
    const { head, empty } = selection.main;
    if (!pending || !empty) return null;
    const { prefix, suffix } = pending.caret;
    const start = prefix.length;
    if (head < start || doc.length - head !== suffix.length) return null;
    const typed = doc.sliceString(start, head);
    const mayFollow = !pending.whole && pending.text !== "" && typed.startsWith(pending.text);
    const begins = pending.text.startsWith(typed) || mayFollow;
    if (!begins || doc.sliceString(0, start) !== prefix || doc.sliceString(head) !== suffix) return null;
    return pending.text.slice(typed.length);
  }

  private show(text: string): void {
    this.text = text;
    const widget = Decoration.widget({ widget: new Ghost(text), side: 1 });
    this.decorations = text ? Decoration.set(widget.range(this.view.state.selection.main.head)) : Decoration.none;
    const whole = this.pending?.whole ?? true;
    const state = `${whole}${text}`;
    if (state !== this.told) this.options.shown(text, whole);
    this.told = state;
  }

  private schedule(): void {
    clearTimeout(this.timer);
    if (!this.options.automatic()) return;
    this.timer = setTimeout(() => {
      const { state, composing } = this.view;
      const { head, empty } = state.selection.main;
      const inWord = /\w/.test(state.sliceDoc(head, head + 1));
      if (empty && !composing && !inWord) void this.ask();
    }, DEBOUNCE_MS);
  }

  /** Ask for a completion at the caret now. */
  async ask(): Promise<void> {
    this.cancel();
    const { doc, selection } = this.view.state;
    const { head } = selection.main;
    const caret = { prefix: doc.sliceString(0, head), suffix: doc.sliceString(head) };
    const pending: Pending = { caret, abort: new AbortController(), text: "", whole: false };
    this.pending = pending;
    const refresh = (): void => {
      if (this.pending === pending) this.view.dispatch({ effects: changed.of(null) });
    };
    try {
      await this.options.complete(caret, pending.abort.signal, (text) => {
        pending.text = text;
        refresh();
      });
      pending.whole = true;
    } catch {
      pending.whole = true; // whoever completes tells the user what went wrong
    }
    refresh();
  }

  /** Abort the request and forget its answer. */
  cancel(): void {
    clearTimeout(this.timer);
    this.pending?.abort.abort();
    this.pending = null;
  }

  destroy(): void {
    this.cancel();
  }

  /** Hide the suggestion; false when none is shown. */
  dismiss(): boolean {
    const had = this.text !== "";
    this.cancel();
    this.view.dispatch({ effects: changed.of(null) });
    return had;
  }

  /** Insert what `part` takes of the suggestion; false when none is shown. */
  accept(part: (text: string) => string): boolean {
    if (!this.text) return false;
    const insert = part(this.text);
    const { head } = this.view.state.selection.main;
    this.view.dispatch({
      changes: { from: head, insert },
      selection: { anchor: head + insert.length },
      userEvent: "input.complete",
      scrollIntoView: true,
    });
    return true;
  }
}

function isTyping(transaction: Transaction): boolean {
  return transaction.isUserEvent("input") || transaction.isUserEvent("delete");
}

/** The first word of a text, with the blanks and marks before it. */
function firstWord(text: string): string {
  return /^\s*(?:\w+|[^\w\s]+)?/.exec(text)?.[0] || text;
}

export interface Commands {
  ask(view: EditorView): void;
  accept(view: EditorView): boolean;
  acceptWord(view: EditorView): boolean;
  dismiss(view: EditorView): boolean;
  /** Forget what was suggested, silently. */
  cancel(view: EditorView): void;
}

/** The extension, and the commands for buttons beside the editor. */
export function ghostText(options: Options): { extension: Extension; commands: Commands } {
  const plugin = ViewPlugin.define((view) => new Suggester(view, options), {
    decorations: (suggester) => suggester.decorations,
  });
  const commands: Commands = {
    ask: (view) => void view.plugin(plugin)?.ask(),
    accept: (view) => view.plugin(plugin)?.accept((text) => text) ?? false,
    acceptWord: (view) => view.plugin(plugin)?.accept(firstWord) ?? false,
    dismiss: (view) => view.plugin(plugin)?.dismiss() ?? false,
    cancel: (view) => view.plugin(plugin)?.cancel(),
  };
  const keys = keymap.of([
    { key: "Tab", run: commands.accept },
    { key: "Mod-ArrowRight", run: commands.acceptWord },
    { key: "Escape", run: commands.dismiss },
    {
      key: "Ctrl-Space",
      run: (view) => {
        commands.ask(view);
        return true;
      },
    },
  ]);
  return { extension: [plugin, Prec.highest(keys)], commands };
}
