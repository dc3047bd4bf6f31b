// Infill for VS Code: a thin client of `infill lsp`, which does the work. This file wires the parts together.

import { commands, type ExtensionContext, type InlineCompletionItem, type Position, type TextDocument, window, workspace } from "vscode";
import { Account } from "./account.js";
import { showMenu, toggle, toggleLanguage } from "./menu.js";
import { tellNoCompletions, tellStopped } from "./messages.js";
import { Offers } from "./offers.js";
import { PackedView } from "./packedView.js";
import { type Listener, Server } from "./server.js";
import { AT_START, SECTION } from "./settings.js";
import { Status } from "./status.js";

let running: Server | undefined;

export async function activate(context: ExtensionContext): Promise<void> {
  const account = new Account(context.secrets);
  const status = new Status();
  const offers = new Offers(() => server.rejected());
  const server = new Server(listener(status, offers, () => packed.refresh()), () => account.key());
  const packed = new PackedView(() => server.lastCompletion(), offers.counts);
  running = server;
  const register = (name: string, action: () => unknown) => commands.registerCommand(`infill.${name}`, action);
  context.subscriptions.push(
    status,
    packed,
    register("menu", async () => showMenu((await account.key()) !== undefined)),
    register("toggle", toggle),
    register("toggleLanguage", toggleLanguage),
    register("showPacked", () => packed.show()),
    register("showLog", () => server.log.show()),
    register("restart", () => server.restart()),
    register("signIn", async () => (await account.signIn()) && server.restart()),
    register("signOut", async () => (await account.signOut()) && server.restart()),
    window.onDidChangeActiveTextEditor(() => status.update()),
    workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration(SECTION)) status.update();
      if (AT_START.some((name) => change.affectsConfiguration(name))) void server.restart();
    }),
    ...watch(offers),
  );
  await server.restart();
}

export function deactivate(): void {
  running?.dispose();
}

function listener(status: Status, offers: Offers, onNews: () => void): Listener {
  return {
    onStarting: () => status.set("starting"),
    onState: (state) => {
      const shown = state.available ? "ready" : state.keyRefused ? "no key" : "no server";
      status.set(shown, state.problem ?? `${state.model} at ${state.url}\n${state.workspace}`);
      if (!state.available) void tellNoCompletions(state);
    },
    onStopped: (error) => {
      status.set("stopped", error.message);
      void tellStopped(error);
    },
    onAccepted: () => {
      offers.accepted();
      onNews();
    },
    onOffered: (document, position, items, milliseconds) => {
      status.latency(milliseconds);
      const offer = offered(document, position, items[0]);
      if (offer) offers.offer(document.uri.toString(), offer.caret, offer.text);
    },
    during: (work) => status.during(work).finally(onNews),
  };
}

/** Where the part of an item's text belongs that does not stand in the document yet, and that part. */
function offered(document: TextDocument, position: Position, item: InlineCompletionItem | undefined) {
  if (typeof item?.insertText !== "string") return undefined;
  const caret = document.offsetAt(position);
  const start = item.range ? document.offsetAt(item.range.start) : caret;
  return { caret, text: item.insertText.slice(caret - start) };
}

/** Let the offers see what the user types, and where the caret goes. */
function watch(offers: Offers) {
  return [
    workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
      for (const { rangeOffset, rangeLength, text } of contentChanges) {
        offers.changed(document.uri.toString(), rangeOffset, rangeLength, text);
      }
    }),
    window.onDidChangeTextEditorSelection(({ textEditor: { document }, selections }) => {
      if (selections[0] && document.uri.scheme !== "output") {
        offers.moved(document.uri.toString(), document.offsetAt(selections[0].active));
      }
    }),
  ];
}
