// Keeps conversations in the browser's storage: one entry each, and an index of their titles.

import { completeTurn } from "./turns.js";

const INDEX = "gprochat.chats";
const PREFIX = "gprochat.chat.";

/** Return `{ id, title, updated }` of every conversation, latest first. */
export function saved() {
  const index = read(INDEX);
  const titled = (Array.isArray(index) ? index : []).filter((entry) => typeof entry?.title === "string");
  const known = new Map(titled.map((entry) => [entry.id, entry]));
  // Two tabs that write the index at the same time lose entries of it, so it is only a cache.
  return ids()
    .map((id) => known.get(id) ?? load(id))
    .filter((entry) => entry !== null)
    .map(({ id, title, updated }) => ({ id, title, updated }))
    .sort((one, other) => other.updated - one.updated);
}

/** Return true if there is an entry for a conversation, readable or not. */
export function has(id) {
  return ids().includes(id);
}

/** Return a conversation, or null if it is missing or unreadable. */
export function load(id) {
  const data = read(PREFIX + id);
  if (data?.id !== id || typeof data.title !== "string") return null;
  if (!Array.isArray(data.turns) || !data.turns.every(isTurn)) return null;
  return { ...data, turns: data.turns.map(completeTurn) };
}

/** Save a conversation. Return false if the browser refuses, for example because storage is full. */
export function save(data) {
  try {
    localStorage.setItem(PREFIX + data.id, JSON.stringify(data));
  } catch {
    return false;
  }
  const { id, title, updated } = data;
  writeIndex([{ id, title, updated }, ...saved().filter((entry) => entry.id !== id)]);
  return true;
}

export function remove(id) {
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    return; // no storage
  }
  writeIndex(saved());
}

/** Call `callback(id, isRemoved)` for each conversation that another tab changes or removes. */
export function onOtherTab(callback) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key?.startsWith(PREFIX)) callback(key.slice(PREFIX.length), newValue === null);
  });
}

function ids() {
  try {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    return keys.map((key) => key.slice(PREFIX.length));
  } catch {
    return []; // no storage
  }
}

function writeIndex(entries) {
  try {
    localStorage.setItem(INDEX, JSON.stringify(entries));
  } catch {
    // The conversations are found without it.
  }
}

function isTurn(turn) {
  if (!["question", "reply", "state"].every((name) => typeof turn?.[name] === "string")) return false;
  const { id, changed, replaces } = completeTurn(turn, 0);
  return typeof id === "string" && typeof changed === "number" && Array.isArray(replaces);
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // not written by this page, or no storage
  }
}
