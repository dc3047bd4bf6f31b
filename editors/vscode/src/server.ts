// The running `infill lsp`: started, watched, asked.

import { type Disposable, type InlineCompletionItem, type Position, type TextDocument, window } from "vscode";
import {
  CloseAction, ErrorAction, LanguageClient, type LanguageClientOptions, RevealOutputChannelOn, State as ClientState,
} from "vscode-languageclient/node";
import { type Launched, launch } from "./process.js";
import type { LastCompletion } from "./report.js";
import { completes, forServer, program, serverUrl } from "./settings.js";

const ACCEPTED = "infill.accepted";
const MAX_RESTARTS = 3;
const RESTARTS_WITHIN_MS = 180_000;
const SCHEMES = ["file", "untitled", "vscode-notebook-cell", "vscode-remote", "vscode-userdata"];

/** The notification `infill/state`. */
export interface ServerState {
  available: boolean;
  url: string;
  model: string | null;
  problem: string | null;
  keyRefused: boolean;
  /** Where the project's files are kept, and whether they are complete. */
  workspace: string;
}

/** Whom the server tells. */
export interface Listener {
  onStarting(): void;
  onState(state: ServerState): void;
  /** It does not run, and will not by itself. */
  onStopped(error: Error): void;
  onAccepted(): void;
  onOffered(document: TextDocument, position: Position, items: readonly InlineCompletionItem[], milliseconds: number): void;
  during<T>(work: () => Promise<T>): Promise<T>;
}

export class Server implements Disposable {
  readonly log = window.createOutputChannel("Infill", { log: true });
  private client: LanguageClient | undefined;
  private turn: Promise<void> = Promise.resolve();
  private ends: number[] = [];

  constructor(
    private readonly listener: Listener,
    private readonly key: () => Promise<string | undefined>,
  ) {}

  /** Start, or start again with the settings and the key of now. One after the other, however often it is called. */
  restart(): Promise<void> {
    this.turn = this.turn.then(async () => {
      await this.stop();
      this.ends = [];
      await this.start();
    });
    return this.turn;
  }

  /** Return what stood in the last prompt; null where nothing was asked, or no server runs. */
  async lastCompletion(): Promise<LastCompletion | null> {
    if (this.client?.state !== ClientState.Running) return null;
    return this.client.sendRequest<LastCompletion | null>("infill/lastCompletion", {});
  }

  rejected(): void {
    if (this.client?.state === ClientState.Running) void this.client.sendNotification("infill/rejected", {});
  }

  dispose(): void {
    this.turn = this.turn.then(() => this.stop()).finally(() => this.log.dispose());
  }

  private async stop(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    await client?.dispose().catch((error: unknown) => this.log.debug(`stopping: ${error}`));
  }

  private async start(): Promise<void> {
    this.listener.onStarting();
    let launched: Launched | undefined;
    try {
      launched = await this.launch();
      const first = launched;
      let used = false;
      const serve = async () => {
        launched = used ? await this.launch() : first;
        used = true;
        return launched.child;
      };
      this.client = new LanguageClient("infill", "Infill", serve, this.options());
      this.client.registerFeature({
        fillClientCapabilities: (capabilities) => {
          capabilities.experimental = { ...capabilities.experimental, infillState: true };
        },
        initialize: () => undefined,
        getState: () => ({ kind: "static" }),
        clear: () => undefined,
      });
      this.client.onNotification("infill/state", (state: ServerState) => this.listener.onState(state));
      await this.client.start();
    } catch (error) {
      const words = launched?.child.exitCode ? launched.lastWords() : "";
      this.listener.onStopped(words ? new Error(words) : (error as Error));
    }
  }

  private async launch(): Promise<Launched> {
    const command = program();
    this.log.info(`starting ${command} lsp --url ${serverUrl()}`);
    return launch(command, serverUrl(), await this.key());
  }

  private options(): LanguageClientOptions {
    return {
      documentSelector: SCHEMES.map((scheme) => ({ scheme })),
      outputChannel: this.log,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => ({ action: this.afterEnd(), handled: true }),
      },
      middleware: {
        provideInlineCompletionItems: async (document, position, context, token, next) => {
          if (!completes(document)) return null;
          const began = performance.now();
          const answer = await this.listener.during(async () => next(document, position, context, token));
          const items = Array.isArray(answer) ? answer : (answer?.items ?? []);
          if (!token.isCancellationRequested && items.length > 0) {
            this.listener.onOffered(document, position, items, performance.now() - began);
          }
          return answer;
        },
        executeCommand: async (command, parameters, next) => {
          if (command === ACCEPTED) this.listener.onAccepted();
          return next(command, parameters);
        },
        workspace: { configuration: ({ items }) => items.map(forServer) },
      },
    };
  }

  /** It ended by itself: start it again, but not for ever. */
  private afterEnd(): CloseAction {
    if (this.client?.state !== ClientState.Running) return CloseAction.DoNotRestart;
    const now = Date.now();
    this.ends = [...this.ends.filter((end) => now - end < RESTARTS_WITHIN_MS), now];
    if (this.ends.length <= MAX_RESTARTS) {
      this.listener.onStarting();
      return CloseAction.Restart;
    }
    this.listener.onStopped(new Error(`the language server ended ${this.ends.length} times within three minutes`));
    return CloseAction.DoNotRestart;
  }
}
