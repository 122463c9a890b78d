// The form for the next question.

import { isSubmit } from "./keys.js";

export class Composer {
  #form;
  #area;
  #send;
  #busy = false;

  /** The button calls `onAsk(question)`, or `onStop()` while a reply arrives. */
  constructor(form, { onAsk, onStop }) {
    this.#form = form;
    this.#area = form.querySelector("textarea");
    this.#send = form.querySelector("button");
    const submit = () => {
      const question = this.#area.value;
      if (this.#busy || !question.trim()) return;
      this.#area.value = "";
      this.#fit();
      onAsk(question);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#busy) onStop();
      else submit();
    });
    this.#area.addEventListener("keydown", (event) => {
      if (!isSubmit(event)) return;
      event.preventDefault();
      submit();
    });
    this.#area.addEventListener("input", () => this.#fit());
  }

  set busy(busy) {
    this.#busy = busy;
    this.#send.textContent = busy ? "Stop" : "Send";
    this.#form.classList.toggle("busy", busy);
  }

  focus() {
    this.#area.focus();
  }

  /** Fit the height to the text. The style sheet limits it. */
  #fit() {
    this.#area.style.height = "auto";
    this.#area.style.height = `${this.#area.scrollHeight}px`;
  }
}
