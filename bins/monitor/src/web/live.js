// Renews what is in #live. The server has escaped it; the parser runs no scripts.
"use strict";
const every = 1000;
// a page that takes long to be made is asked for less often
const restFor = 10;
const root = document.documentElement;
const stale = document.getElementById("stale");
root.dataset.every = every;
root.dataset.renewals = 0;
async function renew() {
  const began = performance.now();
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      const live = document.getElementById("live");
      const selecting = String(getSelection()) !== "" || live.contains(document.activeElement);
      if (fresh && !selecting && fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
      stale.textContent = "";
      root.dataset.renewals++;
    } catch {
      stale.textContent = "The monitor does not answer: this is what was true last.";
    }
  }
  setTimeout(renew, Math.max(every, restFor * (performance.now() - began)));
}
setTimeout(renew, every);
