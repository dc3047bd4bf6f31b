// Load GGUF files in llama.cpp (node-llama-cpp, CPU) and complete prompts that are given as token ids, greedily.
// Arguments: folder with node_modules, file with the requests as JSON, file for the answers as JSON.
import {createRequire} from "node:module";
import {readFileSync, writeFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const [folder, file, target] = process.argv.slice(2);
const at = createRequire(`${folder}/index.js`).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(at).href);
const {models, prompts, texts, stops, limit} = JSON.parse(readFileSync(file, "utf8"));

const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const answers = {};
for (const [name, modelPath] of Object.entries(models)) {
    const model = await llama.loadModel({modelPath});
    const exact = {experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"};
    const context = await model.createContext({contextSize: model.trainContextSize, threads: 1, flashAttention: false, ...exact});
    const sequence = context.getSequence();
    const completions = [];
    for (const prompt of prompts) {
        await sequence.clearHistory();
        const ids = [];
        for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            if (stops.includes(token)) break;
            ids.push(token);
            if (ids.length === limit) break;
        }
        completions.push(ids);
    }
    answers[name] = {
        completions,
        tokens: texts.map((text) => [...model.tokenize(text, false)]),
        eog: stops.filter((token) => model.isEogToken(token)),
    };
    await context.dispose();
    await model.dispose();
}
writeFileSync(target, JSON.stringify({llama: llama.llamaCppRelease, answers}));
process.exit(0);
