import { ago, apiPath, binPath, commands, el, follow, plural } from "./common.js";

const name = document.body.dataset.bin;
const list = document.getElementById("requests");
const url = location.origin + binPath(name);
const maxShown = 200;
const maxColoured = 64 * 1024;

let last = 0; // the number of the newest request that is shown
let generation = 0; // of the bin: another one means that it was cleared
let first = true; // no request is fresh on the first load
const attempts = new Map(); // webhook-id -> how often it has come
let counts = { failed: 0, valid: 0, invalid: 0 };

// pretty indents JSON without parsing it, so that it shows exactly what was
// received: 1.0 as 1.0, and a number of twenty digits with all of them.
function pretty(text) {
  const out = document.createDocumentFragment();
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[{}[\],:]/g) || [];
  let depth = 0;
  const line = () => "\n" + "  ".repeat(depth);
  tokens.forEach((token, i) => {
    const next = tokens[i + 1];
    switch (token) {
      case "{":
      case "[":
        if (next === "}" || next === "]") {
          out.append(el("span", "p", token));
          break;
        }
        depth += 1;
        out.append(el("span", "p", token), line());
        break;
      case "}":
      case "]":
        if (tokens[i - 1] !== "{" && tokens[i - 1] !== "[") {
          depth -= 1;
          out.append(line());
        }
        out.append(el("span", "p", token));
        break;
      case ",":
        out.append(el("span", "p", token), line());
        break;
      case ":":
        out.append(el("span", "p", ": "));
        break;
      default: {
        let kind = "l";
        if (token.startsWith('"')) kind = next === ":" ? "k" : "s";
        else if (/^[-0-9]/.test(token)) kind = "n";
        out.append(el("span", kind, token));
      }
    }
  });
  return out;
}

function parsed(request) {
  if (request.bodyEncoding || request.truncated || !request.body) return undefined;
  try {
    return { value: JSON.parse(request.body) };
  } catch {
    return undefined;
  }
}

function header(request, wanted) {
  const found = request.headers.find((h) => h.name.toLowerCase() === wanted);
  return found ? found.value : "";
}

function bodyOf(request, json) {
  if (!request.bytes) return el("pre", "body none", "no body");
  if (json && request.body.length <= maxColoured) return el("pre", "body", pretty(request.body));
  return el("pre", "body", request.body);
}

function signatureTag(signature) {
  const tags = {
    valid: ["good", "✓ signature valid"],
    invalid: ["bad", "✗ signature invalid"],
    unchecked: ["warn", "signed, not checked"],
    unsigned: ["", "not signed"],
  };
  const [kind, text] = tags[signature.state] || ["", signature.state];
  const tag = el("span", "tag " + kind, text);
  if (signature.reason) tag.title = signature.reason;
  return tag;
}

function answerTag(answer) {
  if (answer.hang) return el("span", "tag bad", "no answer");
  const ok = answer.status < 300;
  const text = `${answer.status}${answer.delay ? " after " + answer.delay : ""}`;
  return el("span", "tag " + (ok ? "good" : "bad"), "answered " + text);
}

function size(bytes) {
  return bytes < 1024 ? plural(bytes, "byte", "bytes") : `${(bytes / 1024).toFixed(1)} KiB`;
}

function fact(label, value) {
  return el("span", "", label + " ", el("code", "", value));
}

function card(request, fresh) {
  const json = parsed(request);
  const failed = request.answer.hang || request.answer.status >= 300;
  const isEvent = json && json.value && typeof json.value.type === "string";
  const type = isEvent ? json.value.type : header(request, "ce-type") || request.method + " request";
  const id = header(request, "webhook-id");
  const nth = id ? (attempts.get(id) || 0) + 1 : 0;
  if (id) attempts.set(id, nth);

  const when = el("time", "when", ago(request.at));
  when.dateTime = request.at;
  when.title = request.at;

  const head = el("header", "", el("span", "tag method", request.method), el("span", "type", type));
  head.append(answerTag(request.answer), signatureTag(request.signature));
  if (nth > 1) head.append(el("span", "tag info", `same id, time ${nth}`));
  head.append(when);

  const facts = el("p", "facts", el("span", "", `#${request.number}`));
  if (id) facts.append(fact("id", id));
  if (request.query) facts.append(fact("query", request.query));
  if (json && json.value && typeof json.value.subject === "string") facts.append(fact("subject", json.value.subject));
  facts.append(el("span", "", size(request.bytes)));
  facts.append(el("span", "", new Date(request.at).toLocaleTimeString(undefined, { hour12: false })));

  const node = el("article", "request" + (failed ? " failed" : "") + (fresh ? " fresh" : ""), head, facts);
  if (request.signature.state === "invalid") {
    node.append(el("p", "reason", "Signature: " + request.signature.reason));
  }
  node.append(bodyOf(request, json));
  if (request.truncated) node.append(el("p", "reason", "The body was too large to keep; this is its beginning."));

  const rows = el("tbody", "");
  for (const h of request.headers) {
    rows.append(el("tr", /^(webhook|ce)-/i.test(h.name) ? "ours" : "", el("td", "", h.name), el("td", "", h.value)));
  }
  node.append(
    el("details", "", el("summary", "", plural(request.headers.length, "header", "headers")), el("table", "headers", rows)),
  );

  counts.failed += failed ? 1 : 0;
  counts.valid += request.signature.state === "valid" ? 1 : 0;
  counts.invalid += request.signature.state === "invalid" ? 1 : 0;
  return node;
}

function behaviour(s) {
  const wait = s.delay && s.delay !== "0s" ? ` after ${s.delay}` : "";
  const fail = s.hang ? "no answer" : String(s.status || (s.failures ? 500 : 200));
  if (s.failures) return `${fail} to the first ${s.failures}, then 200${wait}`;
  return s.hang ? "never" : fail + wait;
}

const form = document.getElementById("form");
const saved = document.getElementById("saved");
let shown = "";

function showSettings(s) {
  document.getElementById("behaviour").textContent = behaviour(s);
  const text = JSON.stringify(s);
  if (text === shown) return; // keep the user's input
  shown = text;
  form.elements.status.value = s.status || "";
  form.elements.failures.value = s.failures || "";
  form.elements.delay.value = s.delay === "0s" ? "" : s.delay;
  form.elements.retryAfter.value = s.retryAfter || "";
  form.elements.hang.checked = s.hang;
  form.elements.secret.value = "";
  form.elements.secret.placeholder = s.hasSecret ? "set; enter another to replace it" : "whsec_… to check signatures";
}

async function save(settings) {
  saved.className = "";
  saved.textContent = "saving";
  try {
    const response = await fetch(apiPath(name), { method: "PUT", body: JSON.stringify(settings) });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    shown = "";
    showSettings(answer);
    saved.textContent = "saved";
  } catch (error) {
    saved.className = "bad";
    saved.textContent = error.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const field = (f) => form.elements[f].value.trim();
  const settings = {
    status: Number(field("status")),
    failures: Number(field("failures")),
    delay: field("delay"),
    retryAfter: Number(field("retryAfter")),
    hang: form.elements.hang.checked,
  };
  if (field("secret")) settings.secret = field("secret");
  save(settings);
});
document.getElementById("reset").addEventListener("click", () => save({}));

function reset() {
  last = 0;
  attempts.clear();
  counts = { failed: 0, valid: 0, invalid: 0 };
  list.replaceChildren();
}

function showStats(received) {
  const stat = (n, text) => el("span", "", el("b", "", String(n)), " " + text);
  const stats = [stat(received, received === 1 ? "request" : "requests")];
  if (counts.failed) stats.push(stat(counts.failed, "answered with a failure"));
  if (counts.valid) stats.push(stat(counts.valid, "with a valid signature"));
  if (counts.invalid) stats.push(stat(counts.invalid, "with an invalid signature"));
  document.getElementById("stats").replaceChildren(...stats);
  document.getElementById("clear").hidden = received === 0;
  document.title = (received ? `(${received}) ` : "") + name + " · Posthorn inbox";
}

const reload = follow(apiPath(name) + "/changes", async () => {
  const response = await fetch(`${apiPath(name)}?raw=1&after=${last}`);
  if (!response.ok) throw new Error("bin");
  const view = await response.json();
  if (view.generation !== generation) {
    const missed = last > 0;
    reset();
    generation = view.generation;
    if (missed) return reload(); // this response has only a part
  }
  showSettings(view.settings);
  if (view.requests.length) {
    list.querySelector(".empty")?.remove();
    for (const request of view.requests.reverse()) list.prepend(card(request, !first));
    while (list.childElementCount > maxShown) list.lastElementChild.remove();
    last = view.received;
  }
  if (view.received === 0 && !list.querySelector(".empty")) {
    const empty = document.getElementById("empty").content.cloneNode(true);
    commands(empty, name);
    list.replaceChildren(empty);
  }
  showStats(view.received);
  first = false;
});

setInterval(() => {
  for (const node of list.querySelectorAll("time")) node.textContent = ago(node.dateTime);
}, 1000);

document.getElementById("url").textContent = url;
document.getElementById("copy").addEventListener("click", async (event) => {
  await navigator.clipboard.writeText(url);
  event.target.textContent = "Copied";
  setTimeout(() => {
    event.target.textContent = "Copy URL";
  }, 1500);
});
document.getElementById("clear").addEventListener("click", async () => {
  await fetch(apiPath(name) + "/requests", { method: "DELETE" });
});
