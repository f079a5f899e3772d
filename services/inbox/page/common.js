// Shared by both pages. No code makes HTML out of text: everything received
// becomes a text node.

export function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export function ago(at) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(at).getTime()) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function plural(n, one, many) {
  return `${n} ${n === 1 ? one : many}`;
}

// binPath keeps a name's slashes, as the hook's URL has them.
export function binPath(name) {
  return "/" + name.split("/").map(encodeURIComponent).join("/");
}

export function apiPath(name) {
  return "/_inbox/bins/" + encodeURIComponent(name);
}

// follow calls load now and at every change. The stream makes it immediate;
// without one it polls every two seconds.
export function follow(changes, load) {
  const live = document.getElementById("live");
  const show = (state, text) => {
    live.className = "live " + state;
    live.textContent = text;
  };
  let busy = false;
  let again = false;
  const run = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    do {
      again = false;
      try {
        await load();
        show("on", "live");
      } catch {
        show("off", "no connection");
      }
    } while (again);
    busy = false;
  };
  const stream = new EventSource(changes);
  stream.addEventListener("changed", run);
  stream.addEventListener("error", () => {
    show("off", "no connection");
  });
  setInterval(() => {
    if (stream.readyState !== EventSource.OPEN) run();
  }, 2000);
  run();
  return run;
}

export function commands(root, name) {
  const url = location.origin + binPath(name);
  const quoted = "'" + url.replaceAll("'", "'\\''") + "'";
  const texts = {
    hello: `curl -d '{"hello":"world"}' ${quoted}`,
    subscribe:
      `curl -X POST http://localhost:3000/subscription -H 'Content-Type: application/json' \\\n` +
      `  -d '${JSON.stringify({ url, eventTypes: ["LIKED_PHOTO"] }).replaceAll("'", "'\\''")}'\n\n` +
      `curl -X POST http://localhost:3000/like/1`,
  };
  for (const node of root.querySelectorAll("[data-command]")) node.textContent = texts[node.dataset.command];
}
