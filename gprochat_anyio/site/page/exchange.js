// Exports and imports conversations: Markdown, and the JSON of gprochat_anyio.Conversation.

import { State, isAnswered, turnMessages } from "./turns.js";

const MARK = /^<!-- gprochat: (user|model) -->$/;
const ESCAPED_MARK = /^\\+(?=<!-- gprochat: )/;
const ROLES = new Map([
  ["user", "user"],
  ["model", "model"],
  ["assistant", "model"],
]);
const HEADING = { user: "## You", model: "## Reply" };

/** The reason why a file is not a conversation, as a sentence for the user. */
export class FileError extends Error {}

export function toJson({ system, turns }) {
  const messages = turns.filter(isAnswered).flatMap(turnMessages);
  return JSON.stringify({ version: 1, system, max_messages: 99, messages }, null, 1);
}

/** Return Markdown. Comments, which renderers hide, separate the messages. */
export function toMarkdown({ title, turns }) {
  const parts = [`# ${title.replace(/\s+/g, " ")}\n`];
  const add = (role, text) => {
    const lines = text.split("\n").map((line) => (/^\\*<!-- gprochat: /.test(line) ? `\\${line}` : line));
    parts.push(`<!-- gprochat: ${role} -->\n${HEADING[role]}\n\n${lines.join("\n")}\n`);
  };
  for (const turn of turns) {
    add("user", turn.question);
    if (isAnswered(turn)) add("model", turn.reply);
  }
  return parts.join("\n");
}

/**
 * Return `{ title, system, turns }` of a file: an export in either format, or the history that the
 * original page keeps in its `localStorage`.
 *
 * Of consecutive messages with one role, only the last one counts, as on the original page.
 * Throws a FileError if the file is anything else.
 */
export function fromFile(text, name) {
  if (!text.trim()) throw new FileError("This file is empty.");
  const { title, system, messages } = /^\s*[[{]/.test(text) ? fromJson(text) : fromMarkdown(text);
  const turns = [];
  for (const { role, content } of messages) {
    const last = turns.at(-1);
    if (role === "user") {
      if (last?.state === State.FAILED) turns.pop();
      turns.push({ question: content, reply: "", state: State.FAILED });
    } else if (last && content.trim()) {
      Object.assign(last, { reply: content, state: State.DONE });
    }
  }
  if (!turns.length) throw new FileError("This file contains no question.");
  return { title: title || name.replace(/\.[^.]*$/, ""), system, turns };
}

function fromJson(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new FileError("This file is not valid JSON.");
  }
  const { version = 1, system = null, messages } = Array.isArray(data) ? { messages: data } : data;
  if (!Array.isArray(messages)) {
    throw new FileError("This JSON is not a conversation: it has no list of messages.");
  }
  if (typeof version !== "number") {
    throw new FileError("This conversation is not valid. Its version is not a number.");
  }
  if (version > 1) throw new FileError("This conversation was saved by a newer version.");
  if (system !== null && typeof system !== "string") {
    throw new FileError("This conversation is not valid. Its system text is not a text.");
  }
  return { title: "", system: system?.toWellFormed() ?? null, messages: messages.map(message) };
}

/** Return the role and the text of a message. Its fields may be of any type. */
function message(item, index) {
  const place = `Message ${index + 1}`;
  if (item === null || typeof item !== "object" || Array.isArray(item)) {
    throw new FileError(`${place} is not an object with a role and a text.`);
  }
  const role = ROLES.get(item.role);
  if (!role) throw new FileError(`${place} has no valid role. The roles are user, model and assistant.`);
  const parts = Array.isArray(item.parts) ? item.parts.map((part) => part?.text) : [];
  const texts = typeof item.content === "string" ? [item.content] : parts;
  if (!texts.length || !texts.every((text) => typeof text === "string")) {
    throw new FileError(`${place} has no text.`);
  }
  return { role, content: texts.join("").toWellFormed() };
}

function fromMarkdown(text) {
  const messages = [];
  let title = "";
  let lines = null;
  for (const line of text.replaceAll("\r\n", "\n").split("\n")) {
    const mark = MARK.exec(line);
    if (mark) {
      lines = [];
      messages.push({ role: mark[1], lines });
    } else if (lines) {
      lines.push(line.replace(ESCAPED_MARK, (slashes) => slashes.slice(1)));
    } else if (line.startsWith("# ")) {
      title = line.slice(2).trim();
    }
  }
  if (!messages.length) throw new FileError("This file is neither Markdown nor JSON from this page.");
  // A heading and a blank line precede each text; a blank line or the end of the file follows.
  const content = (own) => own.slice(2, -1).join("\n");
  return { title, system: null, messages: messages.map(({ role, lines: own }) => ({ role, content: content(own) })) };
}

/** Save a text as a file. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
