import { ago, binPath, commands, el, follow, plural } from "./common.js";

const list = document.getElementById("bins");
document.getElementById("origin").textContent = location.origin + "/";

document.getElementById("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = document.getElementById("name").value.trim().replace(/^\/+|\/+$/g, "");
  if (name) location.href = binPath(name);
});

function card(bin) {
  const link = el("a", "bin", el("b", "", bin.bin), el("span", "", plural(bin.received, "request", "requests")));
  link.href = binPath(bin.bin);
  const last = el("span", "", bin.lastAt ? "last one " + ago(bin.lastAt) : "none yet");
  if (bin.lastAt) last.dataset.at = bin.lastAt;
  link.append(last);
  return link;
}

setInterval(() => {
  for (const node of list.querySelectorAll("[data-at]")) node.textContent = "last one " + ago(node.dataset.at);
}, 1000);

follow("/_inbox/changes", async () => {
  const response = await fetch("/_inbox/bins");
  if (!response.ok) throw new Error("bins");
  const bins = await response.json();
  if (bins.length === 0) {
    const empty = document.getElementById("empty").content.cloneNode(true);
    commands(empty, "my-album");
    list.replaceChildren(empty);
    return;
  }
  list.replaceChildren(...bins.map(card));
});
