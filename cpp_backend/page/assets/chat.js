// The conversation: what is sent, what comes back. Texts of the model are only ever put in as text.

import { Refused, get, stream, useKey } from "./server.js";
import { Spikes } from "./spikes.js";

const $ = (id) => document.getElementById(id);
const spikes = new Spikes();
let messages = []; // {role, content} of the conversation
let running = null; // AbortController of the answer being written

// --- what is seen ---------------------------------------------------------------------------------------------------

function element(tag, className, text = "") {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

function show(role, text = "") {
  $("log").querySelector(".empty")?.remove();
  const box = element("div", `message ${role}`);
  box.append(element("div", "who", role === "user" ? "you" : "model"), element("div", "words", text));
  $("log").append(box);
  follow(true);
  return box;
}

// keeps the end in view, unless the reader has scrolled away from it
function follow(always = false) {
  const log = $("log");
  if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 120) {
    log.scrollTop = log.scrollHeight;
  }
}

function fail(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
  if (error instanceof Refused && error.status === 401) {
    $("settings").open = true;
    $("of-key").hidden = false;
    $("key").focus();
  }
}

function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
  $("anew").disabled = on;
}

function anew() {
  messages = [];
  $("log").replaceChildren(element("p", "empty", "What you write stays in this page and on this server."));
  fail(null);
  $("text").focus();
}

// --- an answer ------------------------------------------------------------------------------------------------------

function body() {
  const out = { stream: true, temperature: Number($("temperature").value) };
  if ($("most").value) {
    out.max_tokens = Number($("most").value);
  }
  if ($("mode").value === "continue") {
    return ["v1/completions", { ...out, prompt: messages.map((m) => m.content).join("") }];
  }
  const system = $("system").value.trim();
  return ["v1/chat/completions", { ...out, messages: [...(system ? [{ role: "system", content: system }] : []), ...messages] }];
}

// what of an event is answer, and what thought before it
function parts(event) {
  const choice = event.choices?.[0] ?? {};
  return [choice.text ?? choice.delta?.content ?? "", choice.delta?.reasoning_content ?? ""];
}

function note(timings, stopped) {
  const out = stopped ? ["stopped"] : [];
  if (timings) {
    out.push(`${timings.predicted_n} tokens`, `${timings.predicted_per_second.toFixed(1)} tokens/s`,
      `prompt: ${timings.prompt_n} read, ${timings.cache_n ?? 0} known`);
  }
  return out.join(" · ");
}

// puts text into an element once per frame, however fast it comes; [add, all of it now]
function writer(makeElement) {
  let node = null, waiting = "", frame = 0;
  const flush = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    if (waiting) {
      node ??= makeElement().appendChild(document.createTextNode(""));
      node.appendData(waiting);
      waiting = "";
      follow();
    }
  };
  const add = (text) => {
    waiting += text;
    frame ||= waiting ? requestAnimationFrame(flush) : 0;
  };
  return [add, flush];
}

async function answer(box) {
  const words = box.querySelector(".words");
  const [add, flush] = writer(() => words);
  const [think, flushThoughts] = writer(() => box.insertBefore(element("div", "thought"), words));
  let timings = null;
  await spikes.begin();
  const [path, request] = body();
  try {
    for await (const event of stream(path, request, running.signal)) {
      const [text, thinking] = parts(event);
      add(text);
      think(thinking);
      timings = event.timings ?? timings;
      spikes.watch(event.id);
    }
  } finally {
    flushThoughts();
    flush();
  }
  box.append(element("div", "note", note(timings, false)));
}

async function send() {
  const text = $("text").value;
  if (running || !text.trim()) {
    return;
  }
  fail(null);
  $("text").value = "";
  messages.push({ role: "user", content: text });
  const asked = show("user", text), box = show("assistant");
  running = new AbortController();
  busy(true);
  box.classList.add("writing");
  try {
    await answer(box);
  } catch (e) {
    if (e.name === "AbortError") {
      box.append(element("div", "note", note(null, true)));
    } else {
      fail(e);
    }
  }
  box.classList.remove("writing");
  const content = box.querySelector(".words").textContent;
  if (content) {
    messages.push({ role: "assistant", content });
  } else if (!$("error").hidden) { // nothing came: as if it had not been sent
    messages.pop();
    asked.remove();
    box.remove();
    $("text").value = text;
  }
  running = null;
  busy(false);
  await spikes.end();
}

// --- the model ------------------------------------------------------------------------------------------------------

function size(bytes) {
  const unit = bytes < 2 ** 30 ? [2 ** 20, "MiB"] : [2 ** 30, "GiB"];
  return `${(bytes / unit[0]).toFixed(1)} ${unit[1]}`;
}

function facts(props, model) {
  const meta = model?.meta ?? {}, context = props.default_generation_settings?.n_ctx;
  const out = meta.n_params ? [`${(meta.n_params / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} million weights, ${size(meta.size)}`] : [];
  if (context) {
    out.push(context >= 2 ** 30 ? "context without bound" : `context of ${context.toLocaleString("en")} tokens`);
  }
  if (props.memory) {
    out.push(`state of ${size(props.memory.state_bytes / props.total_slots)} for each of ${props.total_slots} slots`);
  }
  return out.join(" · ");
}

async function describe() {
  try {
    const [props, models] = [await get("props"), await get("v1/models")];
    const model = models.data?.[0], params = props.default_generation_settings?.params ?? {};
    const name = model?.id ?? "SpikingBrain";
    $("model").textContent = document.title = name.split("/").pop();
    $("model").title = name;
    $("facts").textContent = facts(props, model);
    $("temperature").value = (params.temperature ?? 0.8).toFixed(1);
    $("mode").value = props.chat_template ? "chat" : "continue";
    modes();
    fail(null);
    await spikes.look();
  } catch (e) {
    if (e instanceof Refused && e.status === 503) { // the model is being loaded
      $("facts").textContent = e.message;
      setTimeout(describe, 500);
      return;
    }
    fail(e);
  }
}

const modes = () => { $("of-system").hidden = $("mode").value === "continue"; };

$("composer").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    send();
  }
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (e) => { if (e.key === "Escape") { running?.abort(); } });
$("anew").addEventListener("click", anew);
$("mode").addEventListener("change", modes);
$("key").addEventListener("change", () => { useKey($("key").value); describe(); });

anew();
describe();
