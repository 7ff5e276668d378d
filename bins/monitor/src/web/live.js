// Renews what is in #live. The server has escaped it; the parser runs no scripts.
"use strict";
const every = 2000;
const stale = document.getElementById("stale");
async function renew() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      const live = document.getElementById("live");
      const selecting = String(getSelection()) !== "" || live.contains(document.activeElement);
      if (fresh && !selecting && fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
      stale.textContent = "";
    } catch {
      stale.textContent = "The monitor does not answer: this is what was true last.";
    }
  }
  setTimeout(renew, every);
}
setTimeout(renew, every);
