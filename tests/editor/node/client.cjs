// The client that VS Code is built on, against `infill lsp`: node client.cjs URI TEXT LINE CHARACTER COMMAND ARGUMENT...
const { spawn } = require("node:child_process");
const lsp = require("vscode-languageserver-protocol/node");

const [uri, text, line, character, command, ...parameters] = process.argv.slice(2);
const position = { line: Number(line), character: Number(character) };
const child = spawn(command, parameters, { stdio: ["pipe", "pipe", "inherit"] });
const connection = lsp.createProtocolConnection(
  new lsp.StreamMessageReader(child.stdout),
  new lsp.StreamMessageWriter(child.stdin),
);
const messages = [];
const registered = [];
connection.onNotification(lsp.ShowMessageNotification.type, (message) => messages.push(message.message));
connection.onRequest(lsp.RegistrationRequest.type, ({ registrations }) => {
  registered.push(...registrations.map((each) => each.method));
});
connection.onRequest(lsp.ConfigurationRequest.type, ({ items }) => items.map(() => ({ maxTokens: 5 })));
connection.onRequest(lsp.WorkDoneProgressCreateRequest.type, () => undefined);

async function main() {
  connection.listen();
  const { capabilities } = await connection.sendRequest(lsp.InitializeRequest.type, {
    processId: process.pid,
    rootUri: null,
    workspaceFolders: [{ uri: uri.slice(0, uri.lastIndexOf("/")), name: "project" }],
    capabilities: {
      textDocument: { inlineCompletion: { dynamicRegistration: true } },
      window: { workDoneProgress: true },
      workspace: { configuration: true, didChangeWatchedFiles: { dynamicRegistration: true } },
    },
  });
  await connection.sendNotification(lsp.InitializedNotification.type, {});
  await connection.sendNotification(lsp.DidOpenTextDocumentNotification.type, {
    textDocument: { uri, languageId: "python", version: 1, text },
  });
  const asked = { textDocument: { uri }, position, context: { triggerKind: lsp.InlineCompletionTriggerKind.Automatic } };
  const source = new lsp.CancellationTokenSource();
  const cancelled = connection
    .sendRequest(lsp.InlineCompletionRequest.type, asked, source.token)
    .then(() => "answered", (error) => error.code);
  source.cancel();
  const code = await cancelled;
  const completion = await connection.sendRequest(lsp.InlineCompletionRequest.type, asked);
  const list = await connection.sendRequest(lsp.CompletionRequest.type, asked);
  const accepted = completion.items[0].command;
  await connection.sendRequest(lsp.ExecuteCommandRequest.type, { command: accepted.command });
  const status = await connection.sendRequest(lsp.ExecuteCommandRequest.type, { command: "infill.status" });
  await connection.sendRequest(lsp.ShutdownRequest.type);
  await connection.sendNotification(lsp.ExitNotification.type);
  const exit = await new Promise((resolve) => child.on("exit", resolve));
  const told = { capabilities, cancelled: code, completion, list, status, messages, registered, exit };
  process.stdout.write(JSON.stringify(told) + "\n");
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  child.kill();
  process.exitCode = 1;
});
