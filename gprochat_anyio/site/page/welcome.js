// What an empty conversation shows.

import { button, el } from "./dom.js";

const EXAMPLES = [
  "Explain how a bicycle stays upright",
  "Compare tea and coffee in a table",
  "Write a Python function that removes duplicates from a list",
];

/** Return the element. `ask(question)` is called with an example that the user chooses. */
export function welcome(ask) {
  const { content: model } = document.querySelector("meta[name=model]");
  return el("section", { class: "welcome", "aria-label": "Suggestions" }, [
    el("p", { class: "welcome-title" }, "What would you like to ask?"),
    ...(model ? [el("p", { class: "note" }, `Replies are by ${model}.`)] : []),
    el("div", { class: "examples" }, EXAMPLES.map((text) => button(text, () => ask(text)))),
  ]);
}
