// The current conversation.

import { fill } from "./dom.js";
import { TurnView } from "./turn_view.js";
import { welcome } from "./welcome.js";

export class Transcript {
  #root;
  #announcer;
  #follow;
  #actions;
  #views = new Map();

  constructor(root, announcer, follow, actions) {
    this.#root = root;
    this.#announcer = announcer;
    this.#follow = follow;
    this.#actions = actions;
  }

  show(chat) {
    this.#views.clear();
    const nodes = chat.turns.map((turn) => this.#make(turn).element);
    if (!nodes.length) nodes.push(welcome(this.#actions.ask));
    this.#root.replaceChildren();
    fill(this.#root, nodes);
    this.#follow.toEnd();
  }

  add(turn) {
    this.#root.querySelector(".welcome")?.remove();
    this.#root.append(this.#make(turn).element);
    this.#follow.toEnd();
  }

  /** Show these turns, of which another tab may have added or replaced some. */
  arrange(turns) {
    const present = new Set(turns);
    for (const [turn, view] of this.#views) {
      if (present.has(turn)) continue;
      view.retire();
      this.#views.delete(turn);
    }
    if (turns.length) this.#root.querySelector(".welcome")?.remove();
    let next = this.#root.firstElementChild;
    for (const turn of turns) {
      const { element } = this.#views.get(turn) ?? this.#make(turn);
      if (element === next) next = next.nextElementSibling;
      else this.#root.insertBefore(element, next);
    }
  }

  text(turn, text) {
    this.#views.get(turn)?.push(text);
  }

  update(turn) {
    this.#views.get(turn)?.update();
    if (turn.error && this.#views.has(turn)) this.#announcer.say(turn.error);
  }

  #make(turn) {
    const view = new TurnView(turn, this.#actions, (block) => {
      this.#announcer.sayElement(block);
    });
    this.#views.set(turn, view);
    return view;
  }
}
