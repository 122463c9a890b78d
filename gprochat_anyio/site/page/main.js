// The page: connects its parts.

import { Announcer } from "./announcer.js";
import { ChatList } from "./chat_list.js";
import { Composer } from "./composer.js";
import { FileError, download, fromFile, toJson, toMarkdown } from "./exchange.js";
import { Follow } from "./follow.js";
import { Library } from "./library.js";
import { Password } from "./password.js";
import { Transcript } from "./transcript.js";

const NOT_SAVED =
  "The browser's storage is full or disabled. Conversations marked “not saved” end with this tab: " +
  "export them, or delete others.";
const DELETED =
  "This conversation was deleted in another tab. If you ask again, it is saved as a new conversation.";

const find = (selector) => document.querySelector(selector);

const password = new Password(find("#password"));
const announcer = new Announcer(find("#announcer"));
const follow = new Follow(find("#scroller"), find("#transcript"), (following) => {
  find("#to-end").hidden = following;
});
const library = new Library(password, showState);
const transcript = new Transcript(find("#transcript"), announcer, follow, {
  ask: (question) => {
    start((chat) => chat.ask(question));
    composer.focus();
  },
  again: () => start((chat) => chat.again()),
  // Another tab may have asked or edited in the meantime.
  edit: (turn, question) =>
    start((chat) => (turn === chat.turns.at(-1) ? chat.edit(question) : chat.ask(question))),
});
const composer = new Composer(find("#composer"), {
  onAsk: (question) => start((chat) => chat.ask(question)),
  onStop: () => library.current.stop(),
});
const list = new ChatList(find("#chats"), { open, remove });

/** Run a request of the current conversation. Return false if another one is running. */
function start(run) {
  if (library.current.isBusy) return false;
  announcer.clear();
  follow.toEnd();
  library.revive(library.current);
  run(library.current);
  return true;
}

function show(chat) {
  library.select(chat);
  announcer.clear();
  transcript.show(chat);
  chat.view = transcript;
  showState();
}

function showState() {
  const { current } = library;
  composer.busy = current.isBusy;
  find("#title").textContent = current.title || "New conversation";
  for (const name of ["#to-markdown", "#to-json"]) find(name).disabled = !current.turns.length;
  tell(current.isDeleted ? DELETED : library.unsaved.length ? NOT_SAVED : "");
  list.show(library.entries, current.id);
}

function open(id) {
  closeMenu();
  const chat = library.open(id);
  if (!chat) library.remove(id);
  show(chat ?? library.current);
}

function begin() {
  closeMenu();
  show(library.make());
  composer.focus();
}

function remove(id, title) {
  if (!confirm(`Delete “${title}”?`)) return;
  library.remove(id);
  if (id === library.current.id) begin();
  else showState();
}

function tell(text) {
  find("#notice").textContent = text;
}

function closeMenu() {
  document.body.classList.remove("menu-open");
  find("#menu").setAttribute("aria-expanded", "false");
}

async function importFile(file) {
  try {
    const chat = library.make(fromFile(await file.text(), file.name));
    library.keep(chat);
    show(chat);
    closeMenu();
  } catch (error) {
    if (!(error instanceof FileError)) console.error(error);
    tell(error instanceof FileError ? error.message : "This file cannot be read.");
  }
}

function fileName(ending) {
  const words = library.current.title.match(/[\p{L}\p{N}]+/gu) ?? ["conversation"];
  return `${words.slice(0, 8).join("-")}.${ending}`;
}

find("#new").addEventListener("click", begin);
find("#to-end").addEventListener("click", () => follow.toEnd());
find("#import").addEventListener("click", () => find("#file").click());
find("#file").addEventListener("change", ({ target }) => {
  if (target.files.length) importFile(target.files[0]);
  target.value = "";
});
find("#to-markdown").addEventListener("click", () => {
  download(fileName("md"), "text/markdown", toMarkdown(library.current));
});
find("#to-json").addEventListener("click", () => {
  download(fileName("json"), "application/json", toJson(library.current));
});
find("#menu").addEventListener("click", () => {
  const isOpen = document.body.classList.toggle("menu-open");
  find("#menu").setAttribute("aria-expanded", String(isOpen));
});
find("#shade").addEventListener("click", closeMenu);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || find("#password").open) return;
  if (document.body.classList.contains("menu-open")) closeMenu();
  else library.current.stop();
});
addEventListener("beforeunload", (event) => {
  if (library.unsaved.length) event.preventDefault(); // the browser asks
});
addEventListener("pagehide", () => library.interrupt());

const [latest] = library.entries;
show((latest && library.open(latest.id)) ?? library.make());
composer.focus();
await password.check();
composer.focus();
