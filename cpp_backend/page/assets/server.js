// What the page asks of the server. Every failure is an Error with the server's own sentence.

let key = "";
export const useKey = (text) => { key = text.trim(); };

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (e) {
    throw e.name === "AbortError" ? e : new Error("the server does not answer; is it still running?");
  }
  if (!response.ok) {
    const text = await response.text();
    throw new Refused(response.status, sentence(text) || `${response.status} ${response.statusText}`);
  }
  return response;
}

function sentence(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : error.message;
  } catch {
    return text.slice(0, 500);
  }
}

export const get = async (path, signal) => (await request(path, { signal })).json();

// the events of a streamed answer, each as it comes
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { value, done } = await reader.read();
    if (done) {
      return;
    }
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") {
        continue;
      }
      const event = JSON.parse(line.slice(6));
      if (event.error) {
        throw new Refused(event.error.code, event.error.message);
      }
      yield event;
    }
  }
}
