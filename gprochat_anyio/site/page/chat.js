// A conversation: its turns, and the reply that is arriving.

import { State, completeTurn, isAnswered, mergedTurns, newId, turnMessages } from "./turns.js";
import { WireError, replyTo } from "./wire.js";

const MAX_MESSAGES = 99;
const TITLE_LENGTH = 60;

/** A conversation. Its view, if any, and `onChange` are notified of every change. */
export class Chat {
  view = null;
  isStored = false; // the storage has had it
  isUnsaved = false; // the storage has refused its latest state
  isDeleted = false; // another tab has deleted it
  #running = null; // the turn whose reply is arriving
  #controller = null;
  #credentials;
  #onChange;

  constructor(data, credentials, onChange) {
    this.id = data.id ?? newId();
    this.title = data.title ?? "";
    this.system = data.system ?? null;
    this.turns = (data.turns ?? []).map(completeTurn);
    this.updated = data.updated ?? Date.now();
    this.#credentials = credentials;
    this.#onChange = onChange;
  }

  /** Forget that it was stored and deleted: it is saved as another conversation. */
  renew() {
    this.id = newId();
    this.isStored = this.isDeleted = false;
  }

  get isBusy() {
    return this.#running !== null;
  }

  /** Return the data to save. A reply that is still arriving is saved as stopped. */
  toData() {
    const { id, title, system, updated } = this;
    const turns = this.turns.map(({ error: _, ...turn }) => {
      if (turn.state !== State.WAITING) return turn;
      return { ...turn, state: turn.reply.trim() ? State.STOPPED : State.FAILED };
    });
    return { id, title, system, updated, turns };
  }

  /** Merge a version that another tab may have saved, if any. Return the data to save. */
  merged(stored) {
    const data = this.toData();
    if (stored) {
      data.turns = mergedTurns(stored.turns, data.turns);
      this.#adopt(data.turns);
    }
    return data;
  }

  ask(question) {
    const fields = { id: newId(), question: question.toWellFormed(), reply: "" };
    const turn = completeTurn({ ...fields, state: State.WAITING });
    this.title ||= turn.question.trim().split("\n")[0].slice(0, TITLE_LENGTH);
    this.turns.push(turn);
    this.view?.add(turn);
    return this.#run(turn);
  }

  /** Ask the last question again. Its earlier reply stays unless a new one arrives. */
  again() {
    return this.#run(this.turns.at(-1));
  }

  /** Replace the last question, and ask the new one. */
  edit(question) {
    const turn = this.turns.at(-1);
    const replaces = [...turn.replaces, turn.id];
    Object.assign(turn, { id: newId(), replaces, question: question.toWellFormed(), state: State.FAILED });
    return this.#run(turn);
  }

  /** Stop the reply. The text so far stays. */
  stop() {
    if (this.#running) touch(this.#running);
    this.#controller?.abort();
  }

  /** Stop without notifying the view or `onChange`. */
  discard() {
    this.view = null;
    this.#onChange = () => {};
    this.stop();
  }

  async #run(turn) {
    const earlier = { reply: turn.reply, state: turn.state, changed: turn.changed };
    const controller = new AbortController();
    this.#controller = controller;
    this.#running = turn;
    Object.assign(turn, { reply: "", state: State.WAITING, error: "" });
    touch(turn);
    this.#changed(turn);
    try {
      for await (const text of replyTo(this.#messages(turn), this.#credentials, controller.signal)) {
        turn.reply += text;
        this.view?.text(turn, text);
      }
      if (!turn.reply.trim()) throw new WireError("The model sent no text.");
      turn.state = State.DONE;
      touch(turn);
    } catch (error) {
      touch(turn);
      const stopped = controller.signal.aborted;
      if (!stopped && !(error instanceof WireError)) console.error(error);
      turn.error = stopped ? "Stopped before the first text." : error.message;
      turn.state = stopped && turn.reply.trim() ? State.STOPPED : State.FAILED;
      if (turn.state === State.FAILED && isAnswered(earlier)) Object.assign(turn, earlier);
      else if (turn.state === State.STOPPED) turn.error = "";
    } finally {
      this.#controller = null;
      this.#running = null;
    }
    this.#changed(turn);
  }

  #changed(turn) {
    this.updated = Date.now();
    this.view?.update(turn);
    this.#onChange(this);
  }

  /** Take over the turns of a merged version, except for the state of the reply that is arriving. */
  #adopt(turns) {
    const own = new Map(this.turns.map((turn) => [turn.id, turn]));
    const updated = [];
    this.turns = turns.map((data) => {
      const turn = own.get(data.id);
      if (!turn) return completeTurn(data);
      if (turn !== this.#running && turn.changed !== data.changed) updated.push(Object.assign(turn, data, { error: "" }));
      return turn;
    });
    if (this.#running && !this.turns.includes(this.#running)) this.stop(); // its question was edited elsewhere
    this.view?.arrange(this.turns);
    for (const turn of updated) this.view?.update(turn);
  }

  #messages(turn) {
    const messages = [];
    for (const earlier of this.turns) {
      if (earlier !== turn && isAnswered(earlier)) messages.push(...turnMessages(earlier));
    }
    messages.push(...turnMessages(turn).slice(0, 1));
    const sent = messages.slice(-MAX_MESSAGES);
    // The wire has no system role. The Python client sends a system text in the same way.
    if (this.system) sent[0].parts[0].text = `${this.system}\n\n${sent[0].parts[0].text}`;
    return sent;
  }
}

/** Count a turn's state as its latest one, even if the clock has not moved. */
function touch(turn) {
  turn.changed = Math.max(Date.now(), turn.changed + 1);
}
