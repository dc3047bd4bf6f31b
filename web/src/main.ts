/** The page: an editor, the project's files, and what the server says about each completion. */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorSelection, EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { type Answer, type Ask, type Item, type Model, Server, ServerError } from "./api";
import { dropped, type Given, picked, Project } from "./files";
import { type Caret, ghostText } from "./ghost";
import { indentOf, languageOf } from "./languages";
import { element, make, showAnswer } from "./panel";
import { CURRENT, FILES } from "./sample";

const MAX_LISTED = 200;
const MAX_RECENT = 20;
/** One window's prompts follow each other: the server then keeps what it has computed of them. */
const SESSION = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const project = new Project();
const server = new Server(() => element<HTMLInputElement>("key").value.trim());
/** Editors' states, with their carets and histories, of the files that were open. */
const states = new Map<string, EditorState>();
let current = CURRENT;
let recent: string[] = [];
let models: Model[] = [];

const ghost = ghostText({
  complete,
  automatic: () => element<HTMLInputElement>("automatic").checked,
  shown,
});

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--keyword)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--string)" },
  { tag: tags.comment, color: "var(--comment)", fontStyle: "italic" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--number)" },
  { tag: [tags.definition(tags.variableName), tags.typeName, tags.className, tags.meta], color: "var(--name)" },
]);

const THEME = EditorView.theme({
  "&": { height: "100%", fontSize: "14px", backgroundColor: "var(--field)", color: "var(--text)" },
  "&.cm-focused": { outline: "none" }, // the host shows it
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor, .cm-dropCursor": { borderLeftColor: "var(--text)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--field)", color: "var(--quiet)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--active)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    background: "var(--selection)",
  },
  ".cm-ghost": { color: "var(--ghost)", fontStyle: "italic", whiteSpace: "pre-wrap" },
});

function newState(path: string, text: string): EditorState {
  const caret = text.indexOf("|");
  const marked = path === CURRENT && text === FILES[CURRENT] && caret >= 0;
  return EditorState.create({
    doc: marked ? text.slice(0, caret) + text.slice(caret + 1) : text,
    selection: EditorSelection.cursor(marked ? caret : 0),
    extensions: [
      ghost.extension,
      lineNumbers(),
      history(),
      drawSelection(),
      indentOnInput(),
      bracketMatching(),
      highlightActiveLine(),
      keymap.of([...defaultKeymap, ...historyKeymap, indentWithTab]),
      languageOf(path),
      indentUnit.of(indentOf(path)),
      syntaxHighlighting(COLOURS),
      THEME,
      EditorView.contentAttributes.of({
        "aria-label": `Code of ${path}`,
        "aria-description": "Suggestions appear at the caret while you type. Tab accepts, Escape dismisses.",
        tabindex: "0",
        autocapitalize: "off",
        spellcheck: "false",
      }),
    ],
  });
}

// In a shadow root CodeMirror's styles are constructed sheets, which the page's Content-Security-Policy allows.
const root = element("editor").attachShadow({ mode: "open" });
const view = new EditorView({ root, parent: root as unknown as Element, state: EditorState.create() });

function open(path: string, line?: number): void {
  ghost.commands.cancel(view);
  if (project.has(current) && view.state.doc.length + project.get(current).length > 0) leave();
  current = path;
  recent = [path, ...recent.filter((other) => other !== path)].slice(0, MAX_RECENT);
  view.setState(states.get(path) ?? newState(path, project.get(path)));
  states.set(path, view.state);
  project.set(path, view.state.doc.toString());
  if (line) {
    const { from } = view.state.doc.line(Math.min(line, view.state.doc.lines));
    view.dispatch({ selection: { anchor: from }, effects: EditorView.scrollIntoView(from, { y: "start" }) });
  }
  element("path").textContent = path;
  shown("", true);
  list();
}

/** Keep what was typed in the current file. */
function leave(): void {
  if (!states.has(current)) return;
  states.set(current, view.state);
  project.set(current, view.state.doc.toString());
}

function list(): void {
  const wanted = element<HTMLInputElement>("filter").value.toLowerCase();
  const paths = project.paths.filter((path) => path.toLowerCase().includes(wanted));
  const items = paths.slice(0, MAX_LISTED).map((path) => {
    const button = make("button", path, "path");
    button.type = "button";
    if (path === current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      open(path);
      view.focus();
    });
    const item = make("li");
    item.append(button);
    return item;
  });
  if (paths.length > MAX_LISTED) items.push(make("li", `and ${paths.length - MAX_LISTED} more: type to find one`, "hint"));
  element("list").replaceChildren(...items);
}

async function add(given: Given[]): Promise<void> {
  if (!given.length) return;
  element("summary").textContent = "reading…";
  const fresh = isSample();
  if (fresh) clear();
  const report = await project.add(given);
  for (const { path } of given) states.delete(path);
  if (!project.paths.length) project.set("untitled.py", "");
  if (fresh || !states.has(current)) open(first(given));
  const left = [...report.left].map(([reason, number]) => `${number.toLocaleString("en")} ${reason}`);
  const files = `${report.added.toLocaleString("en")} ${report.added === 1 ? "file" : "files"} added`;
  element("summary").textContent = left.length ? `${files}; left out: ${left.join(", ")}` : files;
  list();
}

/** The file to open of those that were added: code before prose. */
function first(given: Given[]): string {
  const paths = project.paths;
  const code = paths.find((path) => !Array.isArray(languageOf(path)) && !path.endsWith(".json"));
  return given.length === 1 && project.has(given[0]?.path ?? "") ? (given[0]?.path ?? "") : (code ?? paths[0] ?? "");
}

function isSample(): boolean {
  return project.paths.every((path) => path in FILES);
}

function clear(): void {
  ghost.commands.cancel(view);
  project.clear();
  states.clear();
  recent = [];
}

function model(): Model | undefined {
  const chosen = element<HTMLSelectElement>("model").value;
  return models.find((each) => each.id === chosen) ?? models[0];
}

function request(caret: Caret): Ask {
  const length = element<HTMLSelectElement>("length").value;
  const most = model()?.infill?.max_new_tokens ?? 64;
  const withContext = element<HTMLInputElement>("with-context").checked;
  const session = `${SESSION}${withContext ? "" : "-bare"}`;
  return {
    ...(models.length > 1 ? { model: model()?.id } : {}),
    prompt: caret.prefix,
    suffix: caret.suffix,
    path: current,
    context: withContext ? project.others(current) : [],
    recent: withContext ? recent.filter((path) => path !== current) : [],
    session,
    project: session,
    max_tokens: Math.min(most, length === "line" ? 64 : Number(length)),
    ...(length === "line" ? { stop: ["\n"] } : {}),
  };
}

async function complete(caret: Caret, signal: AbortSignal, progress: (text: string) => void): Promise<void> {
  say("asking");
  try {
    const answer = await server.complete(request(caret), signal, (so) => progress(so.text));
    finished(answer);
  } catch (error) {
    if (signal.aborted) return say("ready");
    failed(error);
    throw error;
  }
}

function finished(answer: Answer): void {
  element("error").hidden = true;
  say(answer.text.trim() ? "ready" : "no suggestion here");
  showAnswer(answer, model()?.infill?.max_prompt_tokens, (path) => project.licence(path), openItem);
}

function openItem(item: Item): void {
  if (!project.has(item.path)) return;
  open(item.path, item.first_line);
  view.focus();
}

function failed(error: unknown): void {
  const refused = error instanceof ServerError && (error.status === 401 || error.status === 403);
  if (refused) element<HTMLDetailsElement>("connection").open = true;
  const message = error instanceof ServerError ? error.message : "the server does not answer; is it still running?";
  element("error").textContent = refused ? `${message} (give a key under "API key")` : message;
  element("error").hidden = false;
  say("failed");
}

function say(state: string): void {
  element("state").textContent = state;
}

/** Follow the suggestion: its buttons, and the words for a screen reader once it is whole. */
function shown(text: string, whole: boolean): void {
  for (const id of ["accept", "accept-word", "dismiss"]) element<HTMLButtonElement>(id).disabled = !text;
  element("live").textContent = text && whole ? `Suggestion: ${text}` : "";
}

async function connect(): Promise<void> {
  try {
    models = await server.models();
  } catch (error) {
    return failed(error);
  }
  element("error").hidden = true;
  const options = models.map(({ id }) => new Option(id, id));
  element("model").replaceChildren(...options);
  element("models").hidden = models.length < 2;
  element("model-line").hidden = models.length > 1;
  element("model-name").textContent = models[0]?.id ?? "no model";
  say("ready");
}

function listen(): void {
  const on = (id: string, event: string, act: () => void): void => element(id).addEventListener(event, act);
  const picker = (button: string, input: string): void => {
    const field = element<HTMLInputElement>(input);
    on(button, "click", () => field.click());
    on(input, "change", () => {
      void add(picked(field.files)).then(() => {
        field.value = "";
      });
    });
  };
  picker("pick-folder", "folder");
  picker("pick-files", "files");
  on("clear", "click", () => {
    clear();
    project.set("untitled.py", "");
    open("untitled.py");
    element("summary").textContent = "the project is empty";
  });
  on("filter", "input", list);
  on("new-file", "submit", () => {
    const field = element<HTMLInputElement>("new-path");
    const path = field.value.trim().replaceAll("\\", "/").replace(/^(\.?\/)+/, "");
    if (!path) return;
    if (!project.has(path)) project.set(path, "");
    field.value = "";
    open(path);
    view.focus();
  });
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  const again = (): void => ghost.commands.ask(view);
  for (const id of ["with-context", "length", "model"]) on(id, "change", again);
  on("key-form", "submit", () => void connect());
  on("key", "change", () => void connect());
  on("automatic", "change", () => void ghost.commands.dismiss(view));
  const act = (command: (view: EditorView) => unknown) => (): void => {
    command(view);
    view.focus();
  };
  on("ask", "click", act(ghost.commands.ask));
  on("accept", "click", act(ghost.commands.accept));
  on("accept-word", "click", act(ghost.commands.acceptWord));
  on("dismiss", "click", act(ghost.commands.dismiss));
  listenToDrops();
}

/** Files may be dropped anywhere; the editor, which would insert their text, does not see them. */
function listenToDrops(): void {
  const curtain = element("drop");
  const carries = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  const handle = (name: "dragover" | "dragleave" | "drop", act: (event: DragEvent) => void): void =>
    window.addEventListener(
      name,
      (event) => {
        if (!carries(event)) return;
        event.preventDefault();
        event.stopPropagation();
        act(event);
      },
      { capture: true },
    );
  handle("dragover", () => {
    curtain.hidden = false;
  });
  handle("dragleave", (event) => {
    if (!event.relatedTarget) curtain.hidden = true;
  });
  handle("drop", (event) => {
    curtain.hidden = true;
    if (event.dataTransfer) void dropped(event.dataTransfer).then(add);
  });
}

for (const [path, text] of Object.entries(FILES)) project.set(path, text);
listen();
open(CURRENT);
element("summary").textContent = "an example; add your own files";
view.focus();
void connect();
