/** The project: files that the user picks or drops, which stay in this page's memory. */

const MAX_FILE_BYTES = 256_000;
const MAX_FILES = 5_000;
/** The server takes bodies of 16 MB; in JSON a text is longer than it is. */
const MAX_CHARS = 6_000_000;
const SKIPPED = new Set(["node_modules", "bower_components", "__pycache__", "target", "dist", "build", "out"]);

/** A file that the user gave, with its path in the project. */
export interface Given {
  path: string;
  file: File;
}

/** What became of the files that were given. */
export interface Report {
  added: number;
  /** Reason -> number of files. */
  left: Map<string, number>;
}

export class Project {
  private texts = new Map<string, string>();
  private chars = 0;

  get paths(): string[] {
    return [...this.texts.keys()].sort();
  }

  has(path: string): boolean {
    return this.texts.has(path);
  }

  get(path: string): string {
    return this.texts.get(path) ?? "";
  }

  set(path: string, text: string): void {
    this.chars += text.length - (this.texts.get(path)?.length ?? 0);
    this.texts.set(path, text);
  }

  clear(): void {
    this.texts.clear();
    this.chars = 0;
  }

  /** Path and text of all files but one. */
  others(path: string): { path: string; text: string }[] {
    return [...this.texts].filter(([other]) => other !== path).map(([other, text]) => ({ path: other, text }));
  }

  /** Add the files that are text and fit. */
  async add(given: Given[]): Promise<Report> {
    const report: Report = { added: 0, left: new Map() };
    for (const { path, file } of rooted(given)) {
      const reason = await this.addOne(path, file);
      if (reason) report.left.set(reason, (report.left.get(reason) ?? 0) + 1);
      else report.added += 1;
    }
    return report;
  }

  /** Add one file, or tell why not. */
  private async addOne(path: string, file: File): Promise<string> {
    if (isSkipped(path)) return "hidden or generated";
    if (file.size > MAX_FILE_BYTES) return `larger than ${MAX_FILE_BYTES / 1000} KB`;
    if (this.texts.size >= MAX_FILES) return `beyond ${MAX_FILES.toLocaleString("en")} files`;
    const text = await readText(file);
    if (text === null) return "not text";
    if (this.chars + text.length > MAX_CHARS) return `beyond ${MAX_CHARS / 1_000_000} million characters`;
    this.set(path, text);
    return "";
  }

  /** The SPDX identifier of a file's licence; "" where neither the file nor a folder above it tells. */
  licence(path: string): string {
    const own = /SPDX-License-Identifier:\s*([\w.+() -]*[\w.+)])/.exec(this.get(path).slice(0, 4_000));
    if (own?.[1]) return own[1];
    for (let folder = path; folder; ) {
      folder = folder.includes("/") ? folder.slice(0, folder.lastIndexOf("/")) : "";
      const found = this.licenceOfFolder(folder ? `${folder}/` : "");
      if (found) return found;
    }
    return "";
  }

  private licenceOfFolder(folder: string): string {
    for (const [name, pattern] of MANIFESTS) {
      const found = pattern.exec(this.get(folder + name));
      if (found?.[1]) return found[1];
    }
    for (const name of LICENCE_FILES) {
      const text = this.get(folder + name).slice(0, 2_000);
      const found = LICENCES.find(([, pattern]) => pattern.test(text));
      if (found) return found[0];
    }
    return "";
  }
}

const MANIFESTS: [string, RegExp][] = [
  ["package.json", /"license"\s*:\s*"([^"]+)"/],
  ["composer.json", /"license"\s*:\s*"([^"]+)"/],
  ["Cargo.toml", /^license\s*=\s*"([^"]+)"/m],
  ["pyproject.toml", /^license\s*=\s*(?:\{\s*text\s*=\s*)?"([^"]+)"/m],
];
const LICENCE_FILES = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"];
const LICENCES: [string, RegExp][] = [
  ["MIT", /\bMIT License\b|Permission is hereby granted, free of charge/],
  ["Apache-2.0", /Apache License\s+Version 2\.0/],
  ["MPL-2.0", /Mozilla Public License,? Version 2\.0/i],
  ["AGPL-3.0", /GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3/],
  ["LGPL-3.0", /GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3/],
  ["GPL-3.0", /GNU GENERAL PUBLIC LICENSE\s+Version 3/],
  ["GPL-2.0", /GNU GENERAL PUBLIC LICENSE\s+Version 2/],
  ["BSD", /Redistribution and use in source and binary forms/],
];

/** The files with the folder left out that all of them lie in. */
function rooted(given: Given[]): Given[] {
  const top = given[0]?.path.split("/")[0];
  const shared = given.every(({ path }) => path.startsWith(`${top}/`));
  const cut = shared && top ? top.length + 1 : 0;
  return given
    .map(({ path, file }) => ({ path: path.slice(cut), file }))
    .sort((one, other) => (one.path < other.path ? -1 : 1));
}

function isSkipped(path: string): boolean {
  return path.split("/").some((part) => part.startsWith(".") || SKIPPED.has(part));
}

async function readText(file: File): Promise<string | null> {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return text.includes("\0") ? null : text.replaceAll("\r\n", "\n");
  } catch {
    return null;
  }
}

/** The files of a picker. */
export function picked(files: FileList | null): Given[] {
  return [...(files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** The files of a drop, those in folders too. */
export async function dropped(transfer: DataTransfer): Promise<Given[]> {
  // All entries must be taken before the first wait: afterwards the browser has emptied the list.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const files: Given[] = [];
  for (const entry of entries) await walk(entry, files);
  return files;
}

async function walk(entry: FileSystemEntry, files: Given[]): Promise<void> {
  const path = entry.fullPath.slice(1);
  if (isSkipped(path) || files.length > MAX_FILES * 2) return;
  if (entry instanceof FileSystemFileEntry || entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    files.push({ path, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const inner of batch) await walk(inner, files);
  }
}
