// One session at a terminal: what it prints, what is typed, and its size. It has a place of its own in the session's log.

import { FitAddon } from "/web/addon-fit.js";
import { howEnded } from "/web/list.js";
import { Terminal } from "/web/xterm.js";
import { CallError, fromBase64, toBase64 } from "/web/wire.js";

const WINDOW_BYTES = 512 * 1024;
const ACK_BYTES = 64 * 1024;
const MOST_UNWRITTEN = 64 * 1024;
const FONT_SIZE = 15;
const LEAST_FONT_SIZE = 6;

let numbers = 0;

export class Screen extends EventTarget {
  #wire;
  #id;
  #lastSeq = 0;
  #unacked = 0;
  #missing = 0;
  #isLost = false;
  #early = [];
  #unwritten = new Map(); // what was typed and is not accepted yet, by its `writeId`

  /** Events: `note` with a text, `ended`, and `way-out` when the user wants to leave by the keyboard. */
  constructor(wire, place, session, isOwn) {
    super();
    this.#wire = wire;
    this.session = session;
    this.isOwn = isOwn;
    this.role = isOwn ? "owner" : "viewer";
    this.isOver = false;
    this.memberId = null;
    this.ownerIsThere = true;
    this.note = "";
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
      const isWayOut = event.ctrlKey && event.altKey && event.key === "Home";
      if (isWayOut && event.type === "keydown") {
        this.dispatchEvent(new Event("way-out"));
      }
      return !isWayOut;
    });
    const encoder = new TextEncoder();
    this.terminal.onData((text) => this.#type(encoder.encode(session.tty ? text : this.#line(text))));
    this.terminal.onBinary((text) => this.#type(Uint8Array.from(text, (each) => each.charCodeAt(0))));
    this.#leaveQuestions();
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
    this.memberId = joined.memberId;
    this.#readOnly();
    if (this.#id === "") {
      this.#id = `view-${++numbers}`; // what is told may come before the answer is looked at
      const params = { connection: connectionId, processId, attachedId: this.#id, windowBytes: WINDOW_BYTES };
      try {
        const { gap } = await this.#wire.call("process/attach", params);
        if (gap) {
          this.#note("What came before is not retained any more.");
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
    if (this.#isLost) {
      this.#early.push([method, params]);
    } else {
      this.#take(method, params);
    }
    return true;
  }

  #take(method, params) {
    if (params.seq <= this.#lastSeq) {
      return;
    }
    this.#lastSeq = params.seq;
    if (method === "process/output") {
      const bytes = fromBase64(params.chunk);
      this.terminal.write(bytes, () => this.#drawn(bytes.length, params.seq));
    } else if (method === "process/gap") {
      this.#missing += Object.values(params.omitted).reduce((sum, count) => sum + count, 0);
      this.#note(`${this.#missing} bytes were too fast for this page, and are left out.`);
    } else if (method === "process/exited") {
      this.#over(`It has ended: ${howEnded(params)}.`);
    }
  }

  #over(why) {
    this.isOver = true;
    this.#readOnly();
    this.#note(why);
    this.dispatchEvent(new Event("ended"));
  }

  /** Take note that its owner has put us out. */
  putOut() {
    this.#id = "";
    this.#over("You were put out by its owner.");
  }

  /** Tell the server that what was printed is drawn: no more than a window is under way. */
  #drawn(bytes, seq) {
    this.#unacked += bytes;
    if (this.#unacked >= ACK_BYTES && this.#id !== "") {
      this.#unacked = 0;
      this.#wire.call("process/ack", { processId: this.#id, seq }).catch(() => {});
    }
  }

  #note(text) {
    this.note = text;
    this.dispatchEvent(new CustomEvent("note", { detail: text }));
  }

  // -- typing --

  /** Return what is typed as a pipe takes it, and show it: no terminal does, at the other end. */
  #line(text) {
    const typed = text.replaceAll("\r", "\n");
    if (this.types) {
      this.terminal.write(typed);
    }
    return typed;
  }

  #type(bytes) {
    if (!this.types || this.#id === "") {
      return;
    }
    const waiting = [...this.#unwritten.values()].reduce((sum, chunk) => sum + chunk.length, 0);
    if (this.#isLost && waiting + bytes.length > MOST_UNWRITTEN) {
      this.#note("Not typed: too much waits for the connection already.");
      return;
    }
    const writeId = `page-${++numbers}`;
    this.#unwritten.set(writeId, toBase64(bytes));
    if (!this.#isLost) {
      this.#write(writeId);
    }
  }

  /** Write what was typed. Where the connection is lost before it is answered, it is written again: once, by its id. */
  async #write(writeId) {
    try {
      const params = { processId: this.#id, chunk: this.#unwritten.get(writeId), writeId };
      const { status } = await this.#wire.call("process/write", params);
      this.#unwritten.delete(writeId);
      if (status !== "accepted") {
        this.#note(status === "stdinClosed" ? "Not typed: it reads no input." : "Not typed: it has ended.");
      }
    } catch (error) {
      if (error instanceof CallError) {
        this.#unwritten.delete(writeId);
        this.#note(`Not typed: ${error.message}.`);
      }
    }
  }

  #readOnly() {
    this.terminal.options.disableStdin = !this.types;
    this.terminal.options.cursorBlink = this.types;
    this.terminal.options.cursorInactiveStyle = this.types ? "outline" : "none";
  }

  /** Let the owner's terminal alone answer what a program asks of terminals. Two answers would be typed into it. */
  #leaveQuestions() {
    const { parser } = this.terminal;
    const isLeft = () => !this.isOwn && this.ownerIsThere;
    for (const id of [
      { final: "c" },
      { prefix: ">", final: "c" },
      { prefix: ">", final: "q" },
      { final: "n" },
      { prefix: "?", final: "n" },
      { intermediates: "$", final: "p" },
      { prefix: "?", intermediates: "$", final: "p" },
    ]) {
      parser.registerCsiHandler(id, isLeft);
    }
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, isLeft);
    for (const color of [4, 10, 11, 12]) {
      parser.registerOscHandler(color, (text) => text.includes("?") && isLeft());
    }
  }

  // -- its size --

  /** Have the size of the pane, where we type. Whose size the session has is its connection's to say. */
  async resize() {
    if (!this.session.tty || this.types) {
      this.terminal.options.fontSize = FONT_SIZE;
      this.fit.fit();
    } else {
      this.take({ rows: this.terminal.rows, cols: this.terminal.cols });
    }
    if (this.types && this.session.tty && this.#id !== "") {
      const { rows, cols } = this.terminal;
      await this.#wire.call("process/resize", { processId: this.#id, rows, cols }).catch(() => {});
    }
  }

  /** Take over the size that the session has, whoever has set it, in a type that fits. */
  take({ rows, cols }) {
    if (rows !== this.terminal.rows || cols !== this.terminal.cols) {
      this.terminal.resize(cols, rows);
    } else if (this.types) {
      return;
    }
    for (let fontSize = FONT_SIZE; fontSize >= LEAST_FONT_SIZE; fontSize--) {
      this.terminal.options.fontSize = fontSize;
      const room = this.fit.proposeDimensions();
      if (!room || (room.cols >= cols && room.rows >= rows)) {
        break;
      }
    }
  }

  // -- the connection goes and comes --

  lost() {
    this.#isLost = true;
    this.#early = [];
  }

  /** Catch up with what was printed meanwhile. On another connection the session is attached anew. */
  async back(isSame) {
    if (isSame && this.#id !== "") {
      await this.#catchUp();
    } else if (this.isOwn) {
      this.#over("It has ended together with the connection.");
    } else {
      await this.#attachAnew();
    }
  }

  async #catchUp() {
    try {
      const read = await this.#wire.call("process/read", { processId: this.#id, afterSeq: this.#lastSeq });
      this.#isLost = false;
      if (read.gap) {
        this.#note("What came meanwhile is not retained any more.");
      }
      for (const chunk of read.chunks) {
        this.#take("process/output", chunk);
      }
      if (read.exit) {
        this.#take("process/exited", read.exit);
      }
      this.#lastSeq = Math.max(this.#lastSeq, read.nextSeq - 1);
    } catch (error) {
      if (error instanceof CallError) {
        this.#isLost = false;
        this.#over("It is not there any more.");
      }
      return;
    }
    for (const [method, params] of this.#early.splice(0)) {
      this.#take(method, params);
    }
    for (const writeId of this.#unwritten.keys()) {
      this.#write(writeId);
    }
  }

  /** Begin as a viewer: as a writer, the terminal would answer once more what programs have asked it long ago. */
  async #attachAnew() {
    this.#id = "";
    this.#unwritten.clear();
    try {
      await this.attach("viewer");
      this.#lastSeq = 0;
      this.#isLost = false;
      this.terminal.reset();
    } catch (error) {
      if (error instanceof CallError) {
        this.#over("It is not there any more.");
      }
    }
  }
}
