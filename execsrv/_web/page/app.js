// The page: the door, the list of what there is, live, and the pane with what is open.

import { drawList, titleOf } from "/web/list.js";
import { Pane } from "/web/pane.js";
import { fromBase64, Wire } from "/web/wire.js";

const LIST_MS = 2000;

const at = (id) => document.getElementById(id);

let wire = null;
let mine = null; // our own connection, as the list has it
let listing = null; // the next time
let isListing = false;
let isStale = false; // something has changed since the list was asked for

const pane = new Pane(() => list());

function say(text) {
  at("state").textContent = text;
}

// -- the door --

at("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = at("token").value;
  at("token").value = "";
  say("Connecting …");
  const coming = new Wire(token);
  coming.addEventListener("told", (told) => heard(told.detail));
  coming.addEventListener("lost", () => {
    say("The connection is lost. Trying to come back …");
    pane.lost();
  });
  coming.addEventListener("back", (back) => cameBack(back.detail));
  coming.addEventListener("end", (end) => hungUp(end.detail));
  at("enter").disabled = true;
  try {
    await coming.open();
  } catch (error) {
    say(`Not connected: ${error.message}.`);
    at("token").focus();
    return;
  } finally {
    at("enter").disabled = false;
  }
  wire = coming;
  pane.enter(wire);
  at("door").hidden = true;
  at("inside").hidden = false;
  at("hang-up").hidden = false;
  await list();
  say("Connected.");
  at("sessions-title").focus();
});

at("hang-up").addEventListener("click", () => wire?.close());

function hungUp(why) {
  clearTimeout(listing);
  const left = pane.running;
  wire = mine = null;
  pane.leave();
  drawList(at("connections"), [], [], null, null);
  at("inside").hidden = true;
  at("hang-up").hidden = true;
  at("door").hidden = false;
  at("who").textContent = "";
  const rest = left > 0 ? " What this page has started goes on for two minutes." : "";
  say(why === "" ? `Disconnected.${rest}` : `Disconnected: ${why}.`);
  at("token").focus();
}

async function cameBack(isSame) {
  await pane.back(isSame);
  await list();
  say(isSame ? "Connected again." : "Connected again, by another connection: the one before is over.");
}

addEventListener("beforeunload", (event) => {
  if (pane.running > 0) {
    event.preventDefault(); // Ctrl+W is a key of every shell
  }
});

function heard({ method, params }) {
  if (method === "connection/presence") {
    pane.presence(params);
    list();
  } else {
    pane.told(method, params);
  }
}

// -- the list --

/** Look at what there is, now, and again after a while. */
async function list() {
  if (wire === null) {
    return;
  }
  if (isListing) {
    isStale = true;
    return;
  }
  clearTimeout(listing);
  isListing = true;
  isStale = false;
  try {
    const [{ connections }, { processes }] = await Promise.all([
      wire.call("connection/list"),
      wire.call("process/list", { all: true, usage: true }),
    ]);
    draw(connections, processes);
  } catch {
    // The connection is lost, and comes back or ends.
  } finally {
    isListing = false;
    listing = setTimeout(() => document.visibilityState === "visible" && list(), isStale ? 0 : LIST_MS);
  }
}

function draw(connections, processes) {
  if (wire === null) {
    return;
  }
  mine = connections.find((connection) => connection.isOwn);
  at("who").textContent = `${mine.principal} (${mine.role})`;
  pane.see(connections, processes);
  at("nobody").hidden = drawList(at("connections"), connections, processes, pane.session, show) > 0;
  at("new-shell").hidden = at("far-recording").hidden = mine.role !== "owner";
}

async function show(session, connection) {
  await pane.show({ ...session, title: titleOf(session) }, connection);
  await list();
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && list());

at("new-shell").addEventListener("click", async () => {
  const { shell, userHomeDir } = wire.info;
  await pane.startShell(shell.path, userHomeDir, mine);
  await list();
});

// -- recordings --

at("recording").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file !== undefined) {
    await pane.play(file.name, () => file.text());
    event.target.value = "";
  }
});

at("far-recording").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = at("recording-path").value;
  await pane.play(path, async () => {
    const { dataBase64 } = await wire.call("fs/readFile", { path });
    return new TextDecoder().decode(fromBase64(dataBase64));
  });
});

// For tests, and for the curious: the screen that is open.
globalThis.execsrv = { screen: () => pane.screen };
