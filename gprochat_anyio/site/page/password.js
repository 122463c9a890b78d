// The site's password, which each tab asks for once.

import { accepts } from "./wire.js";

const KEY = "gprochat.password";

export class Password {
  #dialog;
  #field;
  #message;
  #asking = null;
  password = read();

  constructor(dialog) {
    this.#dialog = dialog;
    this.#field = dialog.querySelector("input");
    this.#message = dialog.querySelector(".error");
  }

  /** Ask for the password if the site requires one. The first question reports connection errors. */
  async check() {
    const known = await accepts(this.password).catch(() => true);
    if (!known) await this.ask();
  }

  /** Ask until the password is correct. Return false if the user cancels. */
  ask() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask() {
    this.#message.textContent = "";
    this.#field.value = "";
    this.#dialog.showModal();
    const { promise, resolve } = Promise.withResolvers();
    const listening = new AbortController();
    const { signal } = listening;
    this.#dialog.addEventListener("close", () => resolve(false), { signal });
    this.#dialog.querySelector(".cancel").addEventListener("click", () => this.#dialog.close(), { signal });
    this.#dialog.querySelector("form").addEventListener(
      "submit",
      async (event) => {
        event.preventDefault();
        if (await this.#try(this.#field.value)) resolve(true);
      },
      { signal },
    );
    const known = await promise;
    listening.abort();
    this.#dialog.close();
    return known;
  }

  async #try(password) {
    let message = "This password is wrong.";
    try {
      if (await accepts(password)) {
        this.password = password;
        write(password);
        return true;
      }
    } catch (error) {
      message = error.message;
    }
    this.#message.textContent = message;
    this.#field.select();
    return false;
  }
}

function read() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // a browser without storage
  }
}

function write(password) {
  try {
    sessionStorage.setItem(KEY, password);
  } catch {
    // The page asks again after a reload.
  }
}
