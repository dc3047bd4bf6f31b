/** Colours and indentation by a file's name. */

import { StreamLanguage, type StreamParser } from "@codemirror/language";
import { c, cpp, csharp, java, kotlin } from "@codemirror/legacy-modes/mode/clike";
import { go } from "@codemirror/legacy-modes/mode/go";
import { javascript, json, typescript } from "@codemirror/legacy-modes/mode/javascript";
import { python } from "@codemirror/legacy-modes/mode/python";
import { ruby } from "@codemirror/legacy-modes/mode/ruby";
import { rust } from "@codemirror/legacy-modes/mode/rust";

const PARSERS: Record<string, StreamParser<unknown>> = {
  c, h: c, cc: cpp, cpp, cxx: cpp, hpp: cpp, cs: csharp, java, kt: kotlin, kts: kotlin, go,
  js: javascript, jsx: javascript, mjs: javascript, cjs: javascript, json, ts: typescript, tsx: typescript,
  py: python, pyi: python, rb: ruby, rs: rust,
};

/** The language of a file; nothing where it is unknown. */
export function languageOf(path: string): StreamLanguage<unknown> | [] {
  const parser = PARSERS[path.slice(path.lastIndexOf(".") + 1).toLowerCase()];
  return parser ? StreamLanguage.define(parser) : [];
}

/** Blanks of one level of indentation. */
export function indentOf(path: string): string {
  return /\.(py|pyi|rs|java|kts?|cs|c|h|cc|cpp|cxx|hpp)$/i.test(path) ? "    " : /\.go$/i.test(path) ? "\t" : "  ";
}

