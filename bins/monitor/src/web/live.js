// Renews what is in #live. The server has escaped it; the parser runs no scripts.
"use strict";
const every = 1000;
// a page that takes long to be made is asked for less often
const restFor = 10;
const root = document.documentElement;
const stale = document.getElementById("stale");
root.dataset.every = every;
root.dataset.renewals = 0;

// Makes `old` like `fresh` and leaves alone what is the same, so that focus, selection and scrolling stay where they are.
function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return void old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  patchWithin(old, [...fresh.childNodes]);
}

// Children with a `data-key` stay those of their key, wherever they are now: a focused link goes on leading where it led.
function patchWithin(parent, wanted) {
  const keys = new Set(wanted.map((node) => node.dataset?.key));
  const known = new Map();
  for (const child of [...parent.children]) {
    const key = child.dataset.key;
    if (key === undefined) continue;
    if (keys.has(key)) known.set(key, child);
    else child.remove();
  }
  wanted.forEach((fresh, place) => {
    const there = parent.childNodes[place] ?? null;
    const key = fresh.dataset?.key;
    const same = key === undefined ? there : known.get(key);
    if (!same || (key === undefined && same.dataset?.key !== undefined)) return void parent.insertBefore(fresh, there);
    if (same !== there) parent.insertBefore(same, there);
    patch(same, fresh);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

async function renew() {
  const began = performance.now();
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (fresh) patch(document.getElementById("live"), fresh);
      stale.textContent = "";
      root.dataset.renewals++;
    } catch {
      stale.textContent = "The monitor does not answer: this is what was true last.";
    }
  }
  setTimeout(renew, Math.max(every, restFor * (performance.now() - began)));
}
setTimeout(renew, every);
