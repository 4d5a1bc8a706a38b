// One session at a terminal: what it prints, what is typed, and its size. It has a place of its own in the session's log.

import { FitAddon } from "/web/addon-fit.js";
import { Terminal } from "/web/xterm.js";
import { fromBase64, toBase64 } from "/web/wire.js";

const WINDOW_BYTES = 512 * 1024;
const ACK_BYTES = 64 * 1024;
const FONT_SIZE = 15;
const LEAST_FONT_SIZE = 6;

let numbers = 0;

export class Screen extends EventTarget {
  #wire;
  #id;
  #lastSeq = 0;
  #unacked = 0;
  #resuming = false;
  #early = [];
  #typing = Promise.resolve();

  /** Events: `note` with a text, `ended`, and `way-out` when the user wants to leave by the keyboard. */
  constructor(wire, place, session, isOwn) {
    super();
    this.#wire = wire;
    this.session = session;
    this.isOwn = isOwn;
    this.role = isOwn ? "owner" : "viewer";
    this.isOver = false;
    this.#id = isOwn ? session.processId : "";
    this.element = document.createElement("div");
    this.element.className = "screen";
    place.append(this.element);
    this.terminal = new Terminal({ fontSize: FONT_SIZE, scrollback: 5000, convertEol: !session.tty });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(this.element);
    this.terminal.textarea.setAttribute("aria-label", `Terminal of ${session.title}`);
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.ctrlKey && event.altKey && event.key === "Home") {
        if (event.type === "keydown") {
          this.dispatchEvent(new Event("way-out"));
        }
        return false;
      }
      return true;
    });
    const encoder = new TextEncoder();
    this.terminal.onData((text) => this.#type(encoder.encode(text)));
    this.terminal.onBinary((text) => this.#type(Uint8Array.from(text, (each) => each.charCodeAt(0))));
    this.#readOnly();
  }

  get types() {
    return this.role !== "viewer" && !this.isOver;
  }

  get id() {
    return this.#id;
  }

  /** Join the session's connection in a role, and be told of it, from the beginning where this is the first time. */
  async attach(role = this.role) {
    if (this.isOwn) {
      return;
    }
    const { connectionId, processId } = this.session;
    const joined = await this.#wire.call("connection/join", { connection: connectionId, role });
    this.role = joined.role;
    this.members = joined.members;
    this.#readOnly();
    if (this.#id === "") {
      const id = `view-${++numbers}`;
      this.#id = id; // what is told may come before the answer is looked at
      const params = { connection: connectionId, processId, attachedId: id, windowBytes: WINDOW_BYTES };
      try {
        const attached = await this.#wire.call("process/attach", params);
        if (attached.gap) {
          this.#note("what came before is not retained any more");
        }
      } catch (error) {
        this.#id = "";
        throw error;
      }
    }
  }

  /** Leave the session alone: it goes on. */
  async close() {
    this.terminal.dispose();
    this.element.remove();
    const id = this.#id;
    this.#id = "";
    if (!this.isOwn && id !== "") {
      await this.#wire.call("process/detach", { processId: id }).catch(() => {});
    }
  }

  /** Take in a notification. Return false for one of somebody else. */
  told(method, params) {
    if (this.#id === "" || params.processId !== this.#id) {
      return false;
    }
    if (this.#resuming) {
      this.#early.push([method, params]);
    } else if (params.seq > this.#lastSeq) {
      this.#take(method, params);
    }
    return true;
  }

  #take(method, params) {
    this.#lastSeq = params.seq;
    if (method === "process/output") {
      const bytes = fromBase64(params.chunk);
      this.terminal.write(bytes, () => this.#drawn(bytes.length, params.seq));
    } else if (method === "process/gap") {
      const missing = Object.values(params.omitted).reduce((sum, count) => sum + count, 0);
      this.#note(`${missing} bytes were too fast for this page, and are left out`);
    } else if (method === "process/exited") {
      this.isOver = true;
      this.#readOnly();
      const how = params.signal ?? `exit code ${params.exitCode}`;
      const why = ["exited", "signaled"].includes(params.reason) ? "" : ` (${params.reason})`;
      this.#note(`It has ended: ${how}${why}.`);
      this.dispatchEvent(new Event("ended"));
    }
  }

  /** Tell the server that what was printed is drawn: no more than a window is under way. */
  #drawn(bytes, seq) {
    this.#unacked += bytes;
    if (this.#unacked >= ACK_BYTES && this.#id !== "") {
      this.#unacked = 0;
      this.#wire.call("process/ack", { processId: this.#id, seq }).catch(() => {});
    }
  }

  #type(bytes) {
    if (!this.types || this.#id === "") {
      return;
    }
    const chunk = toBase64(bytes);
    const writeId = `page-${++numbers}`;
    this.#typing = this.#typing.then(() =>
      this.#wire
        .call("process/write", { processId: this.#id, chunk, writeId })
        .catch((error) => this.#note(`Not typed: ${error.message}`)),
    );
  }

  #readOnly() {
    this.terminal.options.disableStdin = !this.types;
    this.terminal.options.cursorBlink = this.types;
  }

  #note(text) {
    this.note = text;
    this.dispatchEvent(new CustomEvent("note", { detail: text }));
  }

  // -- its size --

  /** Have the size of the pane, where we type, and else that of the session in a type that fits. */
  async resize() {
    if (this.#id === "" || !this.session.tty) {
      this.fit.fit();
      return;
    }
    if (this.types) {
      this.terminal.options.fontSize = FONT_SIZE;
      this.fit.fit();
      const { rows, cols } = this.terminal;
      await this.#wire.call("process/resize", { processId: this.#id, rows, cols }).catch(() => {});
    }
    await this.look();
  }

  /** Take over the size that the session has, whoever has set it. */
  async look() {
    const { size } = await this.#wire.call("process/snapshot", { processId: this.#id }).catch(() => ({}));
    if (!size || (size.rows === this.terminal.rows && size.cols === this.terminal.cols)) {
      return;
    }
    this.terminal.resize(size.cols, size.rows);
    for (let fontSize = FONT_SIZE; fontSize >= LEAST_FONT_SIZE; fontSize--) {
      this.terminal.options.fontSize = fontSize;
      const room = this.fit.proposeDimensions();
      if (!room || (room.cols >= size.cols && room.rows >= size.rows)) {
        break;
      }
    }
  }

  // -- the connection goes and comes --

  lost() {
    this.#resuming = true;
    this.#early = [];
  }

  /** Catch up with what was printed meanwhile. On another connection the session is attached anew. */
  async back(resumed) {
    if (!resumed) {
      if (this.isOwn) {
        this.isOver = true;
        this.#readOnly();
        this.#note("It has ended together with the connection.");
        return;
      }
      this.#id = "";
      this.#resuming = false;
      this.#lastSeq = 0;
      this.terminal.reset();
      await this.attach();
      return;
    }
    if (this.isOver && this.#id === "") {
      return;
    }
    const read = await this.#wire.call("process/read", { processId: this.#id, afterSeq: this.#lastSeq });
    if (read.gap) {
      this.#note("what came meanwhile is not retained any more");
    }
    for (const chunk of read.chunks) {
      this.#take("process/output", chunk);
    }
    if (read.exit && read.exit.seq > this.#lastSeq) {
      this.#take("process/exited", read.exit);
    }
    this.#lastSeq = Math.max(this.#lastSeq, read.nextSeq - 1);
    this.#resuming = false;
    for (const [method, params] of this.#early) {
      if (params.seq > this.#lastSeq) {
        this.#take(method, params);
      }
    }
    this.#early = [];
  }
}
