// The turns of a conversation, as data.

/** The states of a turn. */
export const State = Object.freeze({
  WAITING: "waiting",
  DONE: "done",
  STOPPED: "stopped",
  FAILED: "failed",
});

/** Return a random ID. `crypto.randomUUID` is missing over plain HTTP. */
export function newId() {
  return crypto.getRandomValues(new Uint32Array(3)).join("-");
}

/**
 * Return a turn with all fields. `changed` is the time of its last change, and `replaces` the IDs of
 * the turns that editing has replaced by this one.
 */
export function completeTurn(turn, index) {
  return { id: String(index), error: "", changed: 0, replaces: [], ...turn };
}

/** Return true if a turn is part of the history: it has a reply. */
export function isAnswered({ state, reply }) {
  return (state === State.DONE || state === State.STOPPED) && reply.trim() !== "";
}

/** Return the two wire messages of a turn. */
export function turnMessages({ question, reply }) {
  return [
    { role: "user", parts: [{ text: question }] },
    { role: "model", parts: [{ text: reply }] },
  ];
}

/**
 * Return the turns of two versions of a conversation, which two tabs may have changed at the same
 * time. The result has the same turns in whatever order tabs merge their versions.
 *
 * Of two versions of a turn, one with a reply precedes one without, and otherwise the latest counts.
 */
export function mergedTurns(stored, own) {
  const turns = new Map(stored.map((turn) => [turn.id, turn]));
  for (const turn of own) {
    const other = turns.get(turn.id);
    if (!other || precedes(turn, other)) turns.set(turn.id, turn);
  }
  const merged = [...turns.values()];
  const replaced = new Set(merged.flatMap(({ replaces }) => replaces));
  return merged.filter(({ id }) => !replaced.has(id));
}

function precedes(turn, other) {
  const answered = isAnswered(turn);
  return answered === isAnswered(other) ? turn.changed > other.changed : answered;
}
