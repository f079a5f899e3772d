"use strict";
// Everything that comes from the document is set as text, never as markup.
const el = (tag, text, ...classes) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  e.classList.add(...classes);
  return e;
};
const resolve = (api, s) => s && s.$ref ? api.components.schemas[s.$ref.split("/").pop()] : s;
const kind = (s) => {
  if (!s) return "";
  if (s.$ref) return s.$ref.split("/").pop();
  const type = [].concat(s.type || "any").filter((t) => t !== "null").join(" or ");
  if (s.enum) return s.enum.join(" | ");
  return type === "array" ? "list of " + (kind(s.items) || "any") : type + (s.format ? " (" + s.format + ")" : "");
};
const limits = (s) => [
  ["default", s.default], ["at least", s.minimum], ["at most", s.maximum], ["at most characters", s.maxLength],
  ["at least items", s.minItems], ["at most items", s.maxItems],
].filter(([, v]) => v !== undefined).map(([k, v]) => k + " " + v).join(", ");
const row = (table, name, required, schema, text) => {
  const tr = table.appendChild(el("tr"));
  tr.appendChild(el("td", name + (required ? " *" : "")));
  const td = tr.appendChild(el("td", text || ""));
  td.appendChild(el("small", [kind(schema), limits(schema || {})].filter(Boolean).join("; ")));
};
const fields = (api, into, schema) => {
  const s = resolve(api, schema);
  if (!s) return;
  if (s.oneOf) { s.oneOf.forEach((one, i) => { if (i) into.appendChild(el("h3", "or")); fields(api, into, one); }); return; }
  if (s.type === "array") { into.appendChild(el("h3", "A list, each:")); fields(api, into, s.items); return; }
  if (!s.properties) { into.appendChild(el("p", kind(s))); return; }
  const table = into.appendChild(el("table"));
  for (const [name, p] of Object.entries(s.properties)) {
    row(table, name, (s.required || []).includes(name), p, p.description);
    const inner = resolve(api, p.$ref ? p : p.items);
    if (inner && inner.properties) {
      for (const [n, q] of Object.entries(inner.properties)) row(table, name + (p.$ref ? "." : "[].") + n, false, q, q.description);
    }
  }
};
const sample = (api, schema, depth = 0) => {
  const s = resolve(api, schema) || {};
  const example = [].concat(s.examples || [])[0];
  if (example !== undefined) return example;
  if (s.oneOf) return sample(api, s.oneOf[0], depth);
  if (s.enum) return s.enum[0];
  if (s.properties && depth < 3) {
    return Object.fromEntries((s.required || []).map((name) => [name, sample(api, s.properties[name], depth + 1)]));
  }
  if ([].concat(s.type).includes("array")) return [];
  return [].concat(s.type).includes("integer") ? 1 : "...";
};
const curl = (api, method, path, op) => {
  let url = location.origin + path;
  for (const p of op.parameters || []) if (p.in === "path") url = url.replace("{" + p.name + "}", p.example || p.name);
  const lines = ["curl" + (method === "get" ? "" : " -X " + method.toUpperCase()) + " '" + url + "'"];
  const json = op.requestBody && op.requestBody.content["application/json"];
  if (json && op.requestBody.required) {
    lines.push("  -H 'Content-Type: application/json'", "  -d '" + JSON.stringify(sample(api, json.schema)).replaceAll("'", "'\\''") + "'");
  }
  return lines.join(" \\\n");
};
const draw = (api, method, path, op) => {
  const box = el("details");
  box.dataset.text = [method, path, op.summary, op.description].join(" ").toLowerCase();
  const head = box.appendChild(el("summary"));
  head.append(el("span", method.toUpperCase(), "method", method), el("span", path, "path"), el("span", op.summary, "summary"));
  const body = box.appendChild(el("div", undefined, "body"));
  if (op.description) body.appendChild(el("p", op.description));
  if ((op.parameters || []).length) {
    body.appendChild(el("h3", "Parameters"));
    const table = body.appendChild(el("table"));
    for (const p of op.parameters) row(table, p.name, p.required, p.schema, p.description);
  }
  for (const [media, m] of Object.entries((op.requestBody || {}).content || {})) {
    body.appendChild(el("h3", "Body, " + media));
    fields(api, body, m.schema);
  }
  for (const [status, r] of Object.entries(op.responses || {})) {
    if (status === "default") continue;
    body.appendChild(el("h3", status + " " + (r.description || "")));
    for (const m of Object.values(r.content || {})) fields(api, body, m.schema);
  }
  body.appendChild(el("h3", "Try it"));
  body.appendChild(el("pre", curl(api, method, path, op)));
  return box;
};
fetch("/openapi.json").then((r) => {
  if (!r.ok) throw new Error("the server answered " + r.status);
  return r.json();
}).then((api) => {
  document.getElementById("about").textContent = api.info.description + " Version " + api.info.version + ".";
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    if (path.startsWith("/subscriptions")) continue;
    for (const [method, op] of Object.entries(item)) {
      const tag = (op.tags || ["Other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(draw(api, method, path, op));
    }
  }
  const main = document.getElementById("operations");
  for (const tag of ["Events", "Subscriptions", "Photos", ...groups.keys()]) {
    if (!groups.has(tag)) continue;
    const section = main.appendChild(el("section"));
    section.appendChild(el("h2", tag));
    section.append(...groups.get(tag));
    groups.delete(tag);
  }
  document.getElementById("filter").addEventListener("input", (e) => {
    const words = e.target.value.toLowerCase().split(/\s+/);
    for (const box of main.querySelectorAll("details")) box.hidden = !words.every((w) => box.dataset.text.includes(w));
    for (const s of main.querySelectorAll("section")) s.hidden = !s.querySelector("details:not([hidden])");
  });
}).catch((err) => { document.getElementById("about").textContent = "The API's description cannot be shown: " + err.message + "."; });
