// Completes with every client at the server INFILL_URL; prints one JSON object, the name of a client -> what it got.
import { createRequire } from "node:module";
import { constructLlmApi } from "@continuedev/openai-adapters";
import { Mistral } from "@mistralai/mistralai";
import { Ollama } from "ollama";
import OpenAI from "openai";

const { TabbyAgent } = createRequire(import.meta.url)("tabby-agent");
const url = process.env.INFILL_URL;
const key = "secret";
const caret = { model: "codestral", prompt: "def largest(circles):\n    ", suffix: "\n" };

async function joined(stream, textOf) {
  let text = "";
  for await (const part of await stream) text += textOf(part) ?? "";
  return text;
}

async function openai(baseURL) {
  const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
  const whole = await client.completions.create(caret);
  const streamed = await joined(client.completions.create({ ...caret, stream: true }), (part) => part.choices[0].text);
  return [whole.choices[0].text, streamed];
}

async function mistral() {
  const { fim } = new Mistral({ serverURL: url, apiKey: key });
  const whole = await fim.complete(caret);
  const streamed = await joined(fim.stream(caret), (event) => event.data.choices[0].delta.content);
  return [whole.choices[0].message.content, streamed];
}

async function ollama() {
  const client = new Ollama({ host: url });
  const { models } = await client.list();
  const { capabilities } = await client.show({ model: models[0].name });
  if (!capabilities.includes("insert")) throw new Error(`the model cannot infill: ${capabilities}`);
  const whole = await client.generate({ ...caret, options: { num_predict: 16 } });
  const streamed = await joined(client.generate({ ...caret, stream: true }), (part) => part.response);
  return [whole.response, streamed];
}

async function continueAs(provider, apiBase) {
  const api = constructLlmApi({ provider, apiKey: key, apiBase });
  const body = { ...caret, prompt: `+++++ circle.py \nclass Circle: ...\n\n+++++ use.py\n${caret.prompt}`, stream: true };
  return [await joined(api.fimStream(body, new AbortController().signal), (part) => part.choices[0].delta.content)];
}

async function tabby() {
  const agent = new TabbyAgent();
  await agent.initialize({
    config: { server: { endpoint: url, token: key }, anonymousUsageTracking: { disable: true } },
  });
  if (agent.getStatus() !== "ready") throw new Error(`the agent is ${agent.getStatus()}`);
  const text = caret.prompt + caret.suffix;
  const answer = await agent.provideCompletions({
    filepath: "/project/use.py",
    workspace: "/project",
    language: "python",
    text,
    position: caret.prompt.length,
    manually: true,
    declarations: [{ filepath: "/project/circle.py", offset: 0, text: "class Circle: ..." }],
  });
  const told = await agent.postEvent({ type: "select", completion_id: answer.id, choice_index: 0 });
  if (!told) throw new Error("the event was not taken");
  await agent.finalize();
  return answer.choices.map((choice) => choice.text);
}

console.log(
  JSON.stringify({
    openai: await openai(`${url}/v1`),
    deepseek: await openai(`${url}/beta`),
    mistral: await mistral(),
    ollama: await ollama(),
    "continue, mistral": await continueAs("mistral", `${url}/v1/`),
    "continue, deepseek": await continueAs("deepseek", `${url}/`),
    tabby: await tabby(),
  }),
);
process.exit(0);
