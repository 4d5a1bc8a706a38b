// The list of connections and their sessions. What is there already stays the same element, and changes its text.

function made(name, attributes, ...children) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

function tell(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Have one child for each item, in their order. */
function arrange(list, items, keyOf, make, update) {
  const there = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    const child = there.get(key) ?? make(item);
    child.dataset.key = key;
    there.delete(key);
    if (list.children[index] !== child) {
      list.insertBefore(child, list.children[index] ?? null);
    }
    update(child, item);
  });
  for (const gone of there.values()) {
    gone.remove();
  }
}

/** Show the connections that have sessions, our own first. `show` is called with a session that is chosen. */
export function drawList(place, connections, processes, open, show) {
  const groups = connections
    .map((connection) => ({
      connection,
      sessions: processes.filter((session) => session.connectionId === connection.connectionId),
    }))
    .filter((group) => group.sessions.length > 0)
    .sort((a, b) => b.connection.isOwn - a.connection.isOwn);
  arrange(place, groups, keyOfGroup, makeGroup, (element, { connection, sessions }) => {
    const [title, facts, list] = element.children;
    tell(title, connection.isOwn ? "This page" : (connection.name ?? `Connection ${connection.connectionId}`));
    tell(facts, factsOf(connection));
    arrange(list, sessions, keyOfSession, makeSession, (item, session) => {
      const button = item.firstChild;
      const [command, state] = button.children;
      const isOpen = open?.connectionId === session.connectionId && open.processId === session.processId;
      tell(command, titleOf(session));
      tell(state, stateOf(session));
      button.title = command.textContent;
      button.className = session.running ? "runs" : session.exitCode === 0 ? "done" : "failed";
      button.setAttribute("aria-pressed", String(isOpen));
      button.onclick = () => show(session, connection);
    });
  });
  return groups.length;
}

const keyOfGroup = (group) => group.connection.connectionId;
const keyOfSession = (session) => session.processId;

function makeGroup() {
  return made("li", {}, made("h3", {}), made("p", { className: "facts" }), made("ul", {}));
}

function makeSession() {
  const lines = [made("span", { className: "command" }), made("span", { className: "facts" })];
  return made("li", {}, made("button", { type: "button" }, ...lines));
}

export function titleOf(session) {
  return session.argv.length > 0 ? session.argv.join(" ") : session.program;
}

function factsOf(connection) {
  const facts = [connection.principal];
  if (!connection.attached) {
    facts.push("its owner is away");
  }
  if (connection.members.length > 0) {
    facts.push(`${connection.members.length} joined`);
  }
  return facts.filter(Boolean).join(" · ");
}

function stateOf(session) {
  if (session.state === "starting") {
    return "is being started";
  }
  const printed = `${bytes(Object.values(session.totals).reduce((sum, count) => sum + count, 0))} printed`;
  if (!session.running) {
    return [`ended: ${howEnded(session)}`, printed].join(" · ");
  }
  const facts = [`runs for ${span(session.ageMs)}`, `pid ${session.pid}`, printed];
  if (session.cpuMs !== undefined) {
    facts.push(`${(session.cpuMs / 1000).toFixed(1)} s CPU`, `${bytes(session.memoryBytes)} memory`);
  }
  return facts.join(" · ");
}

/** Tell how a session has ended, by what `process/list` or `process/exited` says of it. */
export function howEnded({ signal, exitCode, reason }) {
  const how = signal ?? `exit code ${exitCode}`;
  return reason === null || ["exited", "signaled"].includes(reason) ? how : `${how} (${reason})`;
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
