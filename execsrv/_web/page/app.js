// The page: the door, the list of what there is, live, and the pane with the session or the recording that is open.

import "/web/policy.js";
import { play } from "/web/playing.js";
import { Screen } from "/web/screen.js";
import { CallError, fromBase64, Wire } from "/web/wire.js";

const LIST_MS = 2000;
const RESIZE_MS = 100;

const at = (id) => document.getElementById(id);

let wire = null;
let open = null; // the screen in the pane
let player = null;
let mayType = false;
const own = new Map(); // screens of our own sessions, by process
let listing = null;

function say(text) {
  at("state").textContent = text;
}

function note(text) {
  at("note").textContent = text;
}

function made(name, attributes, ...children) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

// -- the door --

at("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = at("token").value;
  at("token").value = "";
  say("Connecting …");
  const coming = new Wire(token);
  coming.addEventListener("told", told);
  coming.addEventListener("lost", () => {
    say("The connection is lost. Trying to come back …");
    for (const screen of screens()) {
      screen.lost();
    }
  });
  coming.addEventListener("back", (back) => cameBack(back.detail));
  coming.addEventListener("end", (end) => hungUp(end.detail));
  try {
    await coming.open();
  } catch (error) {
    say(`Not connected: ${error.message}.`);
    at("token").focus();
    return;
  }
  wire = coming;
  say("Connected.");
  at("door").hidden = true;
  at("inside").hidden = false;
  at("hang-up").hidden = false;
  await list();
  listing = setInterval(() => document.visibilityState === "visible" && list(), LIST_MS);
  at("sessions-title").tabIndex = -1;
  at("sessions-title").focus();
});

at("hang-up").addEventListener("click", () => wire?.close());

function hungUp(why) {
  clearInterval(listing);
  wire = null;
  shut();
  own.forEach((screen) => screen.close());
  own.clear();
  at("connections").replaceChildren();
  at("inside").hidden = true;
  at("hang-up").hidden = true;
  at("door").hidden = false;
  say(why === "" ? "Disconnected." : `Disconnected: ${why}.`);
  at("token").focus();
}

async function cameBack(resumed) {
  for (const screen of screens()) {
    await screen.back(resumed).catch((error) => note(error.message));
  }
  say("Connected again.");
  await list();
}

function screens() {
  return new Set(open === null ? own.values() : [open, ...own.values()]);
}

// -- what the server tells --

function told(event) {
  const { method, params } = event.detail;
  if (method === "connection/presence") {
    presence(params);
    list();
    return;
  }
  for (const screen of screens()) {
    if (screen.told(method, params)) {
      return;
    }
  }
}

function presence({ connectionId, happened, member }) {
  if (open === null || open.session.connectionId !== connectionId) {
    return;
  }
  const who = member ? `${member.principal} (${member.clientName}, ${member.role})` : "its owner";
  const what = {
    joined: `${who} has joined`,
    left: `${who} has left`,
    revoked: `${who} was put out`,
    ownerLeft: "its owner is away",
    ownerBack: "its owner is back",
    ended: "the connection has ended",
  }[happened];
  note(`${what}.`);
}

// -- the list --

async function list() {
  if (wire === null) {
    return;
  }
  wire.check();
  let connections, processes;
  try {
    [connections, processes] = await Promise.all([seen(), listed()]);
  } catch {
    return; // the connection is lost, and comes back or ends
  }
  if (wire === null) {
    return;
  }
  const lines = [];
  for (const connection of connections) {
    const sessions = processes.filter((session) => (session.connectionId ?? "") === connection.connectionId);
    if (sessions.length > 0) {
      lines.push(connectionItem(connection, sessions));
    }
  }
  replaceKeepingFocus(at("connections"), lines);
  at("nobody").hidden = lines.length > 0;
  const mine = connections.find((connection) => connection.isOwn);
  mayType = mine === undefined || mine.role !== "viewer";
  at("new-shell").hidden = mine !== undefined && mine.role !== "owner";
  at("far-recording").hidden = at("new-shell").hidden;
  const shown = connections.find((connection) => connection.connectionId === open?.session.connectionId);
  people(shown?.members ?? []);
  if (open !== null && !open.isOver && !open.types) {
    await open.look();
  }
}

/** Return the connections that may be seen. A server that shares none knows ours alone. */
async function seen() {
  try {
    return (await wire.call("connection/list")).connections;
  } catch (error) {
    if (error instanceof CallError) {
      return [{ connectionId: "", isOwn: true, role: "owner", principal: "", attached: true, members: [] }];
    }
    throw error;
  }
}

async function listed() {
  return (await wire.call("process/list", { all: true, usage: true })).processes;
}

function connectionItem(connection, sessions) {
  const name = connection.isOwn ? "This page" : (connection.name ?? `Connection ${connection.connectionId}`);
  const facts = [connection.principal, connection.attached ? "" : "its owner is away"];
  if (connection.members.length > 0) {
    facts.push(`${connection.members.length} joined`);
  }
  return made(
    "li",
    {},
    made("h3", { textContent: name }),
    made("p", { className: "facts", textContent: facts.filter(Boolean).join(" · ") }),
    made("ul", {}, ...sessions.map((session) => sessionItem(connection, session))),
  );
}

function sessionItem(connection, session) {
  const title = session.argv?.length > 0 ? session.argv.join(" ") : session.program;
  const button = made("button", { type: "button", id: `s-${connection.connectionId}-${session.processId}` });
  const state = session.running
    ? `runs${session.ageMs === undefined ? "" : ` for ${span(session.ageMs)}`}`
    : session.state === "starting"
      ? "is being started"
      : `ended: ${session.signal ?? `exit code ${session.exitCode}`}`;
  const facts = [state, session.pid ? `pid ${session.pid}` : ""];
  if (session.totals !== undefined) {
    facts.push(`${bytes(total(session.totals))} printed`);
  }
  if (session.cpuMs !== undefined) {
    facts.push(`${(session.cpuMs / 1000).toFixed(1)} s of processor, ${bytes(session.memoryBytes ?? 0)} of memory`);
  }
  button.append(
    made("span", { className: "command", textContent: title }),
    made("span", { className: "facts", textContent: facts.filter(Boolean).join(" · ") }),
  );
  const isOpen = open?.session.connectionId === connection.connectionId && open.session.processId === session.processId;
  button.setAttribute("aria-pressed", String(isOpen));
  button.addEventListener("click", () => show({ ...session, title }, connection.isOwn));
  return made("li", {}, button);
}

function replaceKeepingFocus(list, lines) {
  const focused = document.activeElement?.id;
  list.replaceChildren(...lines);
  if (focused?.startsWith("s-")) {
    at(focused)?.focus({ preventScroll: true });
  }
}

function people(members) {
  const names = members.map((member) => `${member.clientName || member.principal} (${member.role})`);
  at("people").textContent = names.length > 0 ? `Here: ${names.join(", ")}` : "";
}

function total(totals) {
  return Object.values(totals).reduce((sum, count) => sum + count, 0);
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const step = Math.min(3, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${step === 0 ? count : (count / 1024 ** step).toFixed(1)} ${units[step]}`;
}

function span(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) {
    return `${seconds} s`;
  }
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// -- the pane --

at("new-shell").addEventListener("click", async () => {
  const { path } = wire.info.shell;
  const name = path.slice(path.lastIndexOf("/") + 1);
  const processId = `shell-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  const session = { processId, connectionId: "", argv: [path], title: name, tty: true };
  const screen = place(session, true);
  own.set(processId, screen);
  try {
    await wire.call("process/start", {
      processId,
      argv: [path],
      arg0: `-${name}`,
      cwd: wire.info.userHomeDir,
      env: { TERM: "xterm-256color", COLORTERM: "truecolor" },
      envPolicy: { inherit: "all", ignoreDefaultExcludes: true, exclude: [], set: {}, includeOnly: [] },
      tty: true,
      size: { rows: screen.terminal.rows, cols: screen.terminal.cols },
      windowBytes: 512 * 1024,
    });
  } catch (error) {
    own.delete(processId);
    shut();
    note(`Not started: ${error.message}.`);
    return;
  }
  session.connectionId = (await listed()).find((each) => each.processId === processId)?.connectionId ?? "";
  screen.terminal.focus();
  await list();
});

/** Make the pane that of a session, which is not attached yet. */
function place(session, isOwn) {
  shut();
  open = own.get(session.processId) ?? new Screen(wire, at("terminal"), session, isOwn);
  const screen = open;
  screen.element.hidden = false;
  screen.addEventListener("note", (event) => screen === open && note(event.detail));
  screen.addEventListener("way-out", () => {
    (document.querySelector("#connections button[aria-pressed=true]") ?? at("new-shell")).focus();
  });
  screen.addEventListener("ended", () => screen === open && tools());
  screen.terminal.options.screenReaderMode = at("reads-aloud").checked;
  at("pane-title").textContent = session.title;
  note(screen.note ?? "");
  screen.fit.fit();
  tools();
  return screen;
}

async function show(session, isOwn) {
  const screen = place(session, isOwn);
  try {
    await screen.attach();
    await screen.resize();
  } catch (error) {
    shut();
    note(`Not attached: ${error.message}.`);
    return;
  }
  tools();
  screen.terminal.focus();
  await list();
}

function tools() {
  at("tools").hidden = open === null;
  at("keys").hidden = open === null;
  at("role").hidden = open === null || open.isOwn || open.isOver || !mayType;
  at("end").hidden = open === null || !open.types;
  for (const choice of document.querySelectorAll("input[name=role]")) {
    choice.checked = choice.value === (open?.role === "viewer" ? "viewer" : "writer");
  }
}

for (const choice of document.querySelectorAll("input[name=role]")) {
  choice.addEventListener("change", async () => {
    const screen = open;
    try {
      await screen.attach(choice.value);
      await screen.resize();
    } catch (error) {
      note(`You stay a ${screen.role}: ${error.message}.`);
    }
    tools();
  });
}

at("reads-aloud").addEventListener("change", (event) => {
  if (open !== null) {
    open.terminal.options.screenReaderMode = event.target.checked;
  }
});

at("close").addEventListener("click", () => {
  shut();
  at("sessions-title").focus();
});

at("end").addEventListener("click", () => {
  at("really-text").textContent = `End ${open.session.title}, with all that it has started?`;
  at("really").showModal();
});

at("really").addEventListener("close", async () => {
  if (at("really").returnValue === "yes" && open !== null) {
    const mode = { graceful: { timeoutMs: 3000 } };
    await wire.call("process/terminate", { processId: open.id, mode }).catch((error) => note(error.message));
  }
});

/** Have nothing in the pane. A session of our own goes on drawing, out of sight; another one is left. */
function shut() {
  player?.dispose();
  player = null;
  if (open !== null && own.has(open.session.processId)) {
    open.element.hidden = true;
  } else {
    open?.close();
  }
  open = null;
  at("pane-title").textContent = "Nothing is open";
  note("");
  people([]);
  tools();
}

let resizing = null;
new ResizeObserver(() => {
  clearTimeout(resizing);
  resizing = setTimeout(() => open?.resize(), RESIZE_MS);
}).observe(at("terminal"));

// -- recordings --

async function playText(title, text) {
  shut();
  try {
    player = await play(text, at("player"));
  } catch (error) {
    note(`Not played: ${error.message}.`);
    return;
  }
  at("pane-title").textContent = title;
  at("pane-title").focus();
}

at("recording").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file !== undefined) {
    await playText(file.name, await file.text());
    event.target.value = "";
  }
});

at("far-recording").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = at("recording-path").value;
  try {
    const { dataBase64 } = await wire.call("fs/readFile", { path });
    await playText(path, new TextDecoder().decode(fromBase64(dataBase64)));
  } catch (error) {
    note(`Not played: ${error.message}.`);
  }
});

// For tests, and for the curious: the screen that is open.
globalThis.execsrv = { screen: () => open, wire: () => wire };
