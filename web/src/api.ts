/** The transformer's HTTP interface, as docs/reference/http-api.md describes it. */

export interface Document {
  path: string;
  text: string;
}

export interface Ask {
  model?: string;
  prompt: string;
  suffix: string;
  path: string;
  context: Document[];
  recent: string[];
  session: string;
  project: string;
  max_tokens: number;
  stop?: string[];
}

export interface Item {
  path: string;
  first_line: number;
  last_line: number;
  score: number;
  strategy: string;
}

/** What the server tells of a prompt. */
export interface Provenance {
  prompt_tokens: number;
  context: Item[];
  why_empty: string | null;
  warnings: string[];
  timing_ms?: { packing?: number; first_token?: number };
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
}

interface Chunk {
  choices?: { text: string; finish_reason: string | null }[];
  infill?: Provenance;
  usage?: Usage | null;
  error?: { message: string };
}

export interface Model {
  id: string;
  infill?: { max_prompt_tokens?: number; max_new_tokens?: number; strategy?: string };
}

/** An answer so far. Times are milliseconds since the request was sent. */
export interface Answer {
  text: string;
  provenance?: Provenance;
  usage?: Usage;
  finish?: string;
  first?: number;
  end?: number;
}

export class ServerError extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

/** How to reach the server; `key` is asked for at each request, so that it is stored in one place. */
export class Server {
  constructor(private readonly key: () => string) {}

  async models(): Promise<Model[]> {
    const response = await fetch("v1/models", { headers: this.headers(), cache: "no-store" });
    if (!response.ok) throw await failure(response);
    return ((await response.json()) as { data: Model[] }).data;
  }

  /** Complete, telling each piece to `progress`; resolves with the whole answer. Rejects with an AbortError if aborted. */
  async complete(ask: Ask, signal: AbortSignal, progress: (answer: Answer) => void): Promise<Answer> {
    const sent = performance.now();
    const body = JSON.stringify({ ...ask, stream: true, stream_options: { include_usage: true } });
    const headers = { ...this.headers(), "content-type": "application/json" };
    const response = await fetch("v1/completions", { method: "POST", headers, body, signal });
    if (!response.ok || !response.body) throw await failure(response);
    const answer: Answer = { text: "" };
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error) throw new ServerError(chunk.error.message, 502);
      answer.first ??= performance.now() - sent;
      answer.provenance ??= chunk.infill;
      answer.usage = chunk.usage ?? answer.usage;
      const choice = chunk.choices?.[0];
      if (choice) {
        answer.text += choice.text;
        answer.finish = choice.finish_reason ?? answer.finish;
        progress(answer);
      }
    }
    answer.end = performance.now() - sent;
    return answer;
  }

  private headers(): Record<string, string> {
    const key = this.key();
    return key ? { authorization: `Bearer ${key}` } : {};
  }
}

async function failure(response: Response): Promise<ServerError> {
  let message = `the server answered ${response.status}`;
  try {
    const value = (await response.json()) as { error?: { message?: string } | string };
    const error = value.error;
    message = (typeof error === "string" ? error : error?.message) ?? message;
  } catch {
    // An answer that is not JSON, a proxy's for instance: the status says it.
  }
  return new ServerError(message, response.status);
}

/** The data of each server-sent event. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += value.replaceAll("\r", "");
      for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
        const lines = held.slice(0, end).split("\n");
        held = held.slice(end + 2);
        const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
        if (data.length) yield data.join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
