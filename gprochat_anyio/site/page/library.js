// The conversations of this tab, and how they are kept in step with the storage and other tabs.

import { Chat } from "./chat.js";
import * as storage from "./storage.js";

export class Library {
  current = null;
  // Conversations that are shown, busy or not saved. The others are only in the storage.
  #loaded = new Map();
  #credentials;
  #onChange;

  /** `onChange()` is called after a conversation has changed, in this tab or in another one. */
  constructor(credentials, onChange) {
    this.#credentials = credentials;
    this.#onChange = onChange;
    storage.onOtherTab((id, isRemoved) => {
      if (isRemoved) this.#removedElsewhere(id);
      else this.#changedElsewhere(id);
      this.#saveRest();
      this.#onChange();
    });
  }

  /** Return `{ id, title, updated, isUnsaved }` of every conversation, latest first. */
  get entries() {
    const unsaved = this.unsaved;
    const ids = new Set(unsaved.map(({ id }) => id));
    return [...unsaved, ...storage.saved().filter(({ id }) => !ids.has(id))];
  }

  /** The conversations whose latest state the storage has refused. */
  get unsaved() {
    return [...this.#loaded.values()].filter(({ isUnsaved }) => isUnsaved);
  }

  /** Return a new conversation, with the given data if any. */
  make(data = {}) {
    return new Chat(data, this.#credentials, (chat) => this.#changed(chat));
  }

  /** Return a conversation, or null if it is missing or unreadable. */
  open(id) {
    if (this.#loaded.has(id)) return this.#loaded.get(id);
    const data = storage.load(id);
    if (!data) return null;
    const chat = this.make(data);
    chat.isStored = true;
    return chat;
  }

  /** Make a conversation the current one. */
  select(chat) {
    const previous = this.current;
    this.current = chat;
    this.#loaded.set(chat.id, chat);
    if (!previous) return;
    previous.view = null;
    this.#release(previous);
  }

  /** Save a conversation, together with the turns that other tabs have saved. */
  keep(chat) {
    if (chat.isStored && !storage.has(chat.id)) this.#markDeleted(chat);
    if (chat.isDeleted) return;
    chat.isUnsaved = !storage.save(chat.merged(storage.load(chat.id)));
    chat.isStored ||= !chat.isUnsaved;
  }

  /** Make a conversation that another tab has deleted one that can be saved again. */
  revive(chat) {
    if (!chat.isDeleted) return;
    this.#loaded.delete(chat.id);
    chat.renew();
    this.#loaded.set(chat.id, chat);
  }

  remove(id) {
    this.#loaded.get(id)?.discard();
    this.#loaded.delete(id);
    storage.remove(id);
    this.#saveRest();
  }

  /** Stop and save what is busy, because the page may end. */
  interrupt() {
    for (const chat of this.#loaded.values()) {
      if (!chat.isBusy) continue;
      chat.stop(); // otherwise the reply would count as failed when the browser ends its request
      this.keep(chat);
    }
  }

  #changed(chat) {
    this.keep(chat);
    this.#release(chat);
    this.#onChange();
  }

  /** Try again to save what the storage has refused: there may be space for it. */
  #saveRest() {
    for (const chat of this.unsaved) {
      this.keep(chat);
      this.#release(chat);
    }
  }

  #release(chat) {
    if (chat !== this.current && !chat.isBusy && !chat.isUnsaved) this.#loaded.delete(chat.id);
  }

  #changedElsewhere(id) {
    const chat = this.#loaded.get(id);
    const stored = chat && storage.load(id);
    if (!stored) return;
    const known = new Set(stored.turns);
    const isComplete = chat.merged(stored).turns.every((turn) => known.has(turn));
    // Browsers do not lock the storage: another tab may have overwritten what this one has saved.
    if (!isComplete) this.keep(chat);
  }

  #removedElsewhere(id) {
    // For the same reason, this tab may have saved it after its deletion. IDs are never used again.
    if (storage.has(id)) storage.remove(id);
    const chat = this.#loaded.get(id);
    if (chat) this.#markDeleted(chat);
  }

  #markDeleted(chat) {
    chat.isDeleted = true;
    chat.isUnsaved = false;
    chat.stop();
    this.#release(chat);
  }
}
