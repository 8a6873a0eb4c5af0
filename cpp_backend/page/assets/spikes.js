// The spikes of the last answer: GET spikes while it is written, and once after it. The server counts only while it is asked.

import { Refused, get } from "./server.js";

const EVERY = 500; // ms
const BARS = 17;   // counts 0 to 15, and all above
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

export class Spikes {
  #answer = ""; // id of the answer that is watched
  #timer = 0;
  #asking = false;
  #last = null;

  constructor() {
    $("input").addEventListener("change", () => this.#ask());
    $("count").addEventListener("change", () => this.#ask());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    addEventListener("resize", () => this.#draw());
  }

  // whether this model spikes; the part stays hidden where it does not
  async look() {
    try {
      this.#show(await get("spikes"));
      $("spikes").hidden = false;
    } catch (e) {
      $("spikes").hidden = true;
      if (!(e instanceof Refused)) {
        throw e;
      }
    }
  }

  async begin() {
    this.#answer = "";
    await this.#ask(); // from now on it counts
  }

  watch(id) {
    if (!this.#answer && id && !$("spikes").hidden) {
      this.#answer = id;
      this.#timer = setInterval(() => this.#ask(), EVERY);
    }
  }

  async end() {
    clearInterval(this.#timer);
    await this.#ask();
  }

  async #ask() {
    if ($("spikes").hidden || !$("count").checked || this.#asking) {
      return;
    }
    const query = new URLSearchParams(this.#answer ? { id: this.#answer } : {});
    if ($("input").value) {
      const [layer, input] = $("input").value.split(" ");
      query.set("layer", layer);
      query.set("input", input);
    }
    this.#asking = true;
    try {
      this.#show(await get(`spikes?${query}`));
    } catch { // of an answer without a token yet, or whose slot has begun another one
    } finally {
      this.#asking = false;
    }
  }

  #show(stats) {
    if (!stats.n_tokens) {
      return;
    }
    this.#last = stats;
    $("silent").textContent = percent(stats.silent_share);
    $("mean").textContent = stats.mean_spikes.toFixed(2);
    $("seven").textContent = percent(stats.share_to_7);
    $("counted").textContent = stats.n_tokens.toLocaleString("en");
    this.#options(stats);
    this.#draw();
  }

  #options(stats) {
    if ($("input").options.length !== stats.inputs.length) {
      $("input").replaceChildren(...stats.inputs.map((i) => new Option(`layer ${i.layer}, ${i.input}`, `${i.layer} ${i.input}`)));
    }
    $("input").value = `${stats.map.layer} ${stats.map.input}`;
    const input = stats.inputs.find((i) => i.layer === stats.map.layer && i.input === stats.map.input);
    $("of-input").textContent = `${percent(input.silent_share)} silent, ${input.mean_spikes.toFixed(2)} spikes per channel; read by ${input.projections.join(", ")}`;
  }

  #draw() {
    if (this.#last && $("bars").clientWidth) {
      bars($("bars"), this.#last);
      map($("map"), this.#last.map);
    }
  }
}

// a canvas as sharp as the screen, [context, width, height] in CSS pixels
function plain(canvas) {
  const [w, h, ratio] = [canvas.clientWidth, Number(canvas.getAttribute("data-height") ?? canvas.height), devicePixelRatio];
  canvas.setAttribute("data-height", h);
  canvas.width = w * ratio;
  canvas.height = h * ratio;
  canvas.style.height = `${h}px`;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  return [g, w, h];
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function bars(canvas, stats) {
  const shares = Array.from({ length: BARS - 1 }, (_, i) => (stats.bins[i] ?? 0) / stats.n);
  shares.push(Math.max(0, 1 - shares.reduce((a, b) => a + b, 0)));
  const [g, w, h] = plain(canvas), edge = 6, step = (w - 2 * edge) / BARS, most = Math.max(...shares, 1e-9);
  g.font = "10px system-ui, sans-serif";
  g.textAlign = "center";
  shares.forEach((share, i) => {
    const height = (h - 34) * share / most;
    g.fillStyle = color("--accent");
    g.fillRect(edge + i * step + 1.5, h - 16 - height, step - 3, height);
    g.fillStyle = color("--faint");
    g.fillText(i < BARS - 1 ? i : "16+", edge + i * step + step / 2, h - 4);
    if (share >= 0.01) {
      g.fillText(Math.round(100 * share), edge + i * step + step / 2, h - 20 - height);
    }
  });
  canvas.setAttribute("aria-label", `Distribution of counts: ${shares.slice(0, 4).map((s, i) => `${i}: ${percent(s)}`).join(", ")}, largest ${stats.largest}`);
}

// one pixel block per token and neuron; 0 stays empty, 8 and more are full
function map(canvas, { counts, neurons, tokens, layer, input }) {
  const [g, w, h] = plain(canvas), [dx, dy] = [w / Math.max(tokens, 48), h / neurons];
  const [minus, plus] = [color("--minus"), color("--plus")];
  counts.forEach((row, i) => row.forEach((s, k) => {
    if (s) {
      const [x, y] = [Math.round(i * dx), Math.round(k * dy)];
      g.globalAlpha = Math.min(1, Math.abs(s) / 8);
      g.fillStyle = s < 0 ? minus : plus;
      g.fillRect(x, y, Math.round((i + 1) * dx) - x, Math.round((k + 1) * dy) - y);
    }
  }));
  canvas.setAttribute("aria-label", `Firing map of layer ${layer}, ${input}: the last ${tokens} tokens, ${neurons} neurons`);
}
