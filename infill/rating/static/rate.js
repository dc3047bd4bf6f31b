// The page for raters: it shows one item, sends the choice, and shows the next when the server has stored it.

const $ = (id) => document.getElementById(id);
const KEYS = { ArrowLeft: "left", ArrowRight: "right", e: "equal", s: "skip" };
const WORDS = { left: "left is better", right: "right is better", equal: "equally good or bad", skip: "skipped" };
let shown = null;
let items = 0;
let since = 0;
let busy = false;

/** Return the JSON answer to a request; raise an error whose message says what to do. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start infill rate serve again, then choose again: what was stored is kept.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(`Not stored: ${body.error ?? response.status}. Choose again.`);
  return body;
}

/** Run one step at a time, and show its error. */
async function step(work) {
  if (busy) return;
  busy = true;
  try {
    $("error").hidden = true;
    await work();
  } catch (error) {
    $("error").textContent = error.message;
    $("error").hidden = false;
  } finally {
    busy = false;
  }
}

function unseen(text) {
  const node = document.createElement("span");
  node.className = "unseen";
  node.textContent = text;
  return node;
}

/** Show a completion in its place, scrolled so that it can be seen. */
function fill(pre, item, completion) {
  const mark = document.createElement("mark");
  mark.textContent = completion || "(nothing)";
  mark.classList.toggle("nothing", !completion);
  pre.replaceChildren(item.before, unseen("completion begins: "), mark, unseen(" completion ends"), item.after);
  pre.scrollLeft = 0;
  pre.scrollTop = mark.offsetTop - pre.clientHeight / 3;
}

async function show(number) {
  const item = await ask(`items/${number}`);
  shown = item;
  since = performance.now();
  $("end").hidden = true;
  document.querySelector("main").hidden = false;
  $("where").textContent = `${number + 1} of ${items}: ${item.path}`;
  fill($("left"), item, item.left);
  fill($("right"), item, item.right);
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.setAttribute("aria-pressed", String(button.dataset.choice === item.choice));
  }
  $("back").disabled = number === 0;
  $("forward").disabled = number + 1 >= items;
}

function progress(state) {
  items = state.items;
  $("progress").max = state.items;
  $("progress").value = state.rated;
  $("progress-text").textContent = `${state.rated} of ${state.items} rated by ${state.rater}`;
}

async function next(state) {
  progress(state);
  if (state.next !== null) return show(state.next);
  shown = null;
  document.querySelector("main").hidden = true;
  $("end").hidden = false;
  $("end-title").focus();
}

const choose = (choice) =>
  step(async () => {
    if (!shown) return;
    const seconds = (performance.now() - since) / 1000;
    const again = shown.choice !== null;
    const { number } = shown;
    const state = await ask(`items/${number}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ choice, seconds }),
    });
    $("saved").textContent = `Stored for item ${number + 1}: ${WORDS[choice]}.`;
    if (again && number + 1 < items) {
      progress(state);
      await show(number + 1);
    } else await next(state);
  });

const move = (by) =>
  step(async () => {
    const number = (shown?.number ?? items) + by;
    if (number >= 0 && number < items) await show(number);
  });

for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
$("back").addEventListener("click", () => move(-1));
$("forward").addEventListener("click", () => move(1));
$("again").addEventListener("click", () =>
  step(async () => {
    await show(0);
    $("where").focus();
  }),
);
document.addEventListener("keydown", (event) => {
  if (!$("keys").checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  // In code that was reached with the Tab key, the arrows scroll.
  if (event.target instanceof HTMLPreElement && event.target.matches(":focus-visible")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS) {
    event.preventDefault();
    choose(KEYS[key]);
  } else if (key === "b" || key === "n") {
    event.preventDefault();
    move(key === "b" ? -1 : 1);
  }
});
step(async () => next(await ask("state")));
