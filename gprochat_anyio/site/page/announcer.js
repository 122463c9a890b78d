// Announces a reply to screen readers, block by block, so that they never read changing text.

import { el } from "./dom.js";

const MAX_LENGTH = 1000;
const MAX_BLOCKS = 20;

export class Announcer {
  #root;

  /** `root` is an element with `aria-live`. */
  constructor(root) {
    this.#root = root;
  }

  /** Announce an element's text. Separate lines must not run together. */
  sayElement(element) {
    const leaves = [...element.querySelectorAll("p, pre, td, th")];
    this.say(leaves.length ? leaves.map((leaf) => leaf.textContent).join("\n") : element.textContent);
  }

  say(text) {
    this.#root.append(el("p", {}, text.slice(0, MAX_LENGTH)));
    while (this.#root.childElementCount > MAX_BLOCKS) this.#root.firstElementChild.remove();
  }

  clear() {
    this.#root.replaceChildren();
  }
}
