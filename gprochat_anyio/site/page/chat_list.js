// The list of conversations.

import { button, el } from "./dom.js";

export class ChatList {
  #root;
  #actions;

  /** `actions` are `open(id)` and `remove(id, title)`. */
  constructor(root, actions) {
    this.#root = root;
    this.#actions = actions;
  }

  show(entries, currentId) {
    const focused = this.#root.contains(document.activeElement);
    this.#root.replaceChildren(
      ...entries.map(({ id, title, isUnsaved }) => {
        const name = title || "Untitled";
        const current = id === currentId;
        const open = button(name, () => this.#actions.open(id), {
          class: "open-chat",
          title: name,
          "aria-current": current && "true",
        });
        const remove = button("×", () => this.#actions.remove(id, name), {
          class: "remove-chat",
          "aria-label": `Delete ${name}`,
        });
        const mark = el("span", { class: "note" }, "not saved");
        return el("li", { class: current ? "current" : "" }, isUnsaved ? [open, mark, remove] : [open, remove]);
      }),
    );
    if (focused) this.#root.querySelector("[aria-current]")?.focus();
  }
}
