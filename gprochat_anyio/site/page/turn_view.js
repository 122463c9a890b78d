// One turn on the page: the question, the reply in Markdown, and their buttons.

import { button, copyButton, el } from "./dom.js";
import { isSubmit } from "./keys.js";
import { MarkdownView } from "./markdown.js";
import { State, isAnswered } from "./turns.js";

export class TurnView {
  #turn;
  #onBlock;
  #onEdit;
  #isEditing = false;
  #isRetired = false;
  #live = null;
  #shown = null;
  #question = el("div", { class: "question-text" });
  #text = el("div", { class: "reply-text" });
  #error = el("p", { class: "error" });
  #note = el("span", { class: "note" });
  #copy = copyButton(() => this.#turn.reply);
  #again;

  /**
   * `actions` are `again()`, and `edit(turn, question)`, which returns false if it cannot ask yet.
   * `onBlock` receives each block of a live reply.
   */
  constructor(turn, actions, onBlock) {
    this.#turn = turn;
    this.#onBlock = onBlock;
    this.#onEdit = actions.edit;
    this.#again = button("Regenerate", actions.again, { class: "last-only again" });
    const edit = button("Edit", () => this.#edit(), { class: "last-only edit" });
    this.element = el("article", { class: "turn" }, [
      el("section", { class: "question" }, [
        el("h2", { class: "sr-only" }, "You"),
        this.#question,
        el("div", { class: "actions" }, [edit]),
      ]),
      el("section", { class: "reply" }, [
        el("h2", { class: "sr-only" }, "Reply"),
        this.#text,
        this.#error,
        el("div", { class: "actions" }, [this.#copy, this.#again, this.#note]),
      ]),
    ]);
    this.update();
  }

  push(text) {
    this.#live?.push(text);
  }

  /** Show the turn's current state. */
  update() {
    const { question, reply, state, error } = this.#turn;
    const waits = state === State.WAITING;
    this.#question.textContent = question;
    this.element.classList.toggle("waiting", waits);
    this.#text.setAttribute("aria-busy", String(waits));
    if (waits) {
      this.#live = new MarkdownView(this.#text, this.#onBlock);
      this.#live.push(reply);
      this.#shown = null;
    } else if (this.#shown !== reply) {
      this.#end(reply);
    }
    const failed = state === State.FAILED;
    this.#error.textContent = error || (failed ? "This question has no complete reply." : "");
    this.#again.textContent = failed ? "Retry" : "Regenerate";
    this.#copy.hidden = !reply.trim();
    this.#note.textContent = state === State.STOPPED ? "Stopped" : "";
  }

  /** Remove the turn from the page, but not while its user edits it: the text would be lost. */
  retire() {
    this.#isRetired = true;
    if (!this.#isEditing) this.element.remove();
  }

  #end(reply) {
    this.#live?.end();
    // A failed attempt to regenerate restores the earlier reply.
    if (this.#live === null || isAnswered(this.#turn)) this.#render(reply);
    this.#live = null;
    this.#shown = reply;
  }

  #render(reply) {
    const view = new MarkdownView(this.#text);
    view.push(reply);
    view.end();
  }

  #edit() {
    const area = el("textarea", { class: "edit-text", "aria-label": "Edit the question", rows: "3" });
    const close = () => {
      form.replaceWith(this.#question);
      this.#setEditing(false);
      if (this.#isRetired) this.element.remove();
    };
    const submit = () => {
      if (area.value.trim() && this.#onEdit(this.#turn, area.value)) close();
    };
    const buttons = [button("Cancel", close), button("Send", submit, { class: "primary" })];
    const form = el("div", { class: "edit-form" }, [area, el("div", { class: "edit-buttons" }, buttons)]);
    area.value = this.#turn.question;
    area.addEventListener("keydown", (event) => {
      if (isSubmit(event)) {
        event.preventDefault();
        submit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    });
    this.#question.replaceWith(form);
    this.#setEditing(true);
    area.focus();
  }

  #setEditing(editing) {
    this.#isEditing = editing;
    this.element.classList.toggle("editing", editing);
  }
}
