// The pane: one session at its terminal, or one recording, and who else is there. Sessions of our own go on drawing unseen.

import { howEnded } from "/web/list.js";
import { play } from "/web/playing.js";
import { Screen } from "/web/screen.js";

const RESIZE_MS = 100;

const at = (id) => document.getElementById(id);

export class Pane {
  #wire = null;
  #list;
  #own = new Map(); // the screens of our own sessions, by process
  #player = null;

  /** `list` has the list drawn anew. */
  constructor(list) {
    this.#list = list;
    this.screen = null;
    for (const choice of this.#roles) {
      choice.addEventListener("change", () => this.#changeRole(choice.value));
    }
    at("reads-aloud").addEventListener("change", () => this.#readAloud());
    at("close").addEventListener("click", () => {
      this.shut();
      this.#list();
      at("sessions-title").focus();
    });
    at("end").addEventListener("click", () => {
      at("really-text").textContent = `End ${this.screen.session.title}, with all that it has started?`;
      at("really").returnValue = "no";
      at("really").showModal();
    });
    at("really").addEventListener("close", () => at("really").returnValue === "yes" && this.#end());
    let resizing = null;
    new ResizeObserver(() => {
      clearTimeout(resizing);
      resizing = setTimeout(() => this.screen?.resize(), RESIZE_MS);
    }).observe(at("terminal"));
  }

  /** The session that is open, null where there is none. */
  get session() {
    return this.screen?.session ?? null;
  }

  /** How many sessions of our own have not ended. */
  get running() {
    return [...this.#own.values()].filter((screen) => !screen.isOver).length;
  }

  get #roles() {
    return document.querySelectorAll("input[name=role]");
  }

  get #screens() {
    return new Set(this.screen === null ? this.#own.values() : [this.screen, ...this.#own.values()]);
  }

  // -- the connection --

  enter(wire) {
    this.#wire = wire;
  }

  leave() {
    this.shut();
    for (const screen of this.#own.values()) {
      screen.close();
    }
    this.#own.clear();
    this.#wire = null;
  }

  lost() {
    for (const screen of this.#screens) {
      screen.lost();
    }
  }

  async back(isSame) {
    for (const screen of this.#screens) {
      await screen.back(isSame);
    }
    this.#showTools();
    await this.screen?.resize();
  }

  told(method, params) {
    for (const screen of this.#screens) {
      if (screen.told(method, params)) {
        return;
      }
    }
  }

  // -- who is there --

  presence({ connectionId, happened, member }) {
    if (this.session?.connectionId !== connectionId) {
      return;
    }
    const { screen } = this;
    if (member !== null && !screen.isOwn && [null, member.memberId].includes(screen.memberId)) {
      if (happened === "revoked") {
        screen.putOut();
      }
      return; // that we have joined comes before we know who we are there
    }
    const who = member === null ? "Its owner" : `${member.principal} (${member.clientName}, ${member.role})`;
    const what = {
      joined: "has joined",
      left: "has left",
      revoked: "was put out",
      ownerLeft: "is away",
      ownerBack: "is back",
    }[happened];
    this.#note(happened === "ended" ? "The connection has ended." : `${who} ${what}.`);
  }

  /** Take in what the list says of the sessions that are shown. */
  see(connections, processes) {
    const there = new Map(processes.map((session) => [`${session.connectionId}/${session.processId}`, session]));
    const found = ({ session }) => there.get(`${session.connectionId}/${session.processId}`);
    for (const [id, screen] of this.#own) {
      if (screen !== this.screen && screen.isOver && found(screen) === undefined) {
        screen.close();
        this.#own.delete(id);
      }
    }
    if (this.screen === null) {
      return;
    }
    const session = found(this.screen);
    const connection = connections.find((each) => each.connectionId === this.session.connectionId);
    this.screen.highestRole = connection?.role ?? "viewer";
    this.screen.ownerIsThere = connection?.attached ?? false;
    at("people").textContent = connection === undefined ? "" : this.#people(connection);
    if (session?.size !== undefined && !this.screen.isOwn && !this.screen.isOver) {
      this.screen.take(session.size);
    }
    this.#showTools();
  }

  #people({ isOwn, attached, principal, members }) {
    const owner = isOwn ? ["you (owner)"] : attached ? [`${principal} (owner)`] : [];
    const others = members.map((member) => {
      const name = member.memberId === this.screen.memberId ? "you" : `${member.principal}, ${member.clientName}`;
      return `${name} (${member.role})`;
    });
    return `Here: ${[...owner, ...others].join(" · ")}`;
  }

  // -- what is open --

  async show(session, connection) {
    const screen = this.#place(session, connection);
    try {
      await screen.attach();
      if (session.size) {
        screen.take(session.size);
      }
      await screen.resize();
    } catch (error) {
      this.shut();
      this.#note(`Not attached: ${error.message}.`);
      return;
    }
    if (!session.running && screen.note === "") {
      this.#note(`It has ended: ${howEnded(session)}.`);
    }
    this.#showTools();
    screen.terminal.focus();
  }

  async startShell(path, cwd, connection) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const processId = `shell-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
    const session = { processId, connectionId: connection.connectionId, title: path, tty: true };
    const screen = this.#place(session, connection);
    this.#own.set(processId, screen);
    try {
      await this.#wire.call("process/start", {
        processId,
        argv: [path],
        arg0: `-${name}`,
        cwd,
        env: { TERM: "xterm-256color", COLORTERM: "truecolor" },
        envPolicy: { inherit: "all", ignoreDefaultExcludes: true, exclude: [], set: {}, includeOnly: [] },
        tty: true,
        size: { rows: screen.terminal.rows, cols: screen.terminal.cols },
        windowBytes: 512 * 1024,
      });
    } catch (error) {
      this.#own.delete(processId);
      this.shut();
      screen.close();
      this.#note(`Not started: ${error.message}.`);
      return;
    }
    screen.terminal.focus();
  }

  /** Play a recording, whose text `read` gives. */
  async play(title, read) {
    this.shut();
    try {
      this.#player = await play(await read(), at("player"));
    } catch (error) {
      this.#note(`Not played: ${error.message}.`);
      return;
    }
    this.#open(title);
    at("pane-title").focus();
  }

  /** Have nothing in the pane. A session of our own goes on drawing, out of sight; another one is left. */
  shut() {
    this.#player?.dispose();
    this.#player = null;
    if (this.screen?.isOwn) {
      this.screen.element.hidden = true;
    } else {
      this.screen?.close();
    }
    this.screen = null;
    this.#open("");
  }

  /** Make the pane that of a session, which is not attached yet. */
  #place(session, connection) {
    this.shut();
    const ours = connection.isOwn ? this.#own.get(session.processId) : undefined;
    this.screen = ours ?? this.#newScreen(session, connection);
    this.screen.element.hidden = false;
    this.#open(session.title);
    this.#readAloud();
    this.#note(this.screen.note);
    this.screen.fit.fit();
    return this.screen;
  }

  #newScreen(session, connection) {
    const screen = new Screen(this.#wire, at("terminal"), session, connection.isOwn);
    screen.highestRole = connection.role;
    screen.ownerIsThere = connection.attached;
    screen.addEventListener("note", (event) => screen === this.screen && this.#note(event.detail));
    screen.addEventListener("ended", () => screen === this.screen && this.#showTools());
    screen.addEventListener("way-out", () => {
      const entry = document.querySelector("#connections button[aria-pressed=true]");
      (entry?.checkVisibility() ? entry : at("close")).focus();
    });
    return screen;
  }

  #open(title) {
    at("pane-title").textContent = title || "Nothing is open";
    at("inside").classList.toggle("opened", title !== "");
    at("empty").hidden = title !== "";
    at("terminal").hidden = this.screen === null;
    document.title = title === "" ? "execsrv" : `${title} · execsrv`;
    at("people").textContent = "";
    this.#note("");
    this.#showTools();
  }

  #note(text) {
    at("note").textContent = text;
  }

  // -- what can be done with it --

  #showTools() {
    const { screen } = this;
    const focused = document.activeElement;
    at("tools").hidden = screen === null && this.#player === null;
    at("aloud").hidden = screen === null;
    at("keys").hidden = screen === null || !screen.types;
    at("role").hidden = screen === null || screen.isOwn || screen.isOver || screen.highestRole === "viewer";
    at("end").hidden = screen === null || !screen.types;
    for (const choice of this.#roles) {
      choice.checked = choice.value === (screen?.role === "viewer" ? "viewer" : "writer");
    }
    if (focused !== null && at("tools").contains(focused) && !focused.checkVisibility()) {
      at("close").focus();
    }
  }

  async #changeRole(role) {
    const { screen } = this;
    try {
      await screen.attach(role);
      await screen.resize();
    } catch (error) {
      this.#note(`You stay a ${screen.role}: ${error.message}.`);
    }
    this.#showTools();
    this.#list();
  }

  #readAloud() {
    if (this.screen !== null) {
      this.screen.terminal.options.screenReaderMode = at("reads-aloud").checked;
    }
  }

  async #end() {
    const mode = { graceful: { timeoutMs: 3000 } };
    const params = { processId: this.screen?.id, mode };
    await this.#wire?.call("process/terminate", params).catch((error) => this.#note(`Not ended: ${error.message}.`));
  }
}
