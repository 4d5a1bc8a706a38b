// The protocol, over a websocket: calls with their answers, notifications, and a connection that is taken up again.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
const CHECK_MS = 1000;
const SILENCE_MS = 15000;
const KEEP_SECONDS = 120;

/** An answer of the server that is an error. `kind` is a stable word. */
export class CallError extends Error {
  constructor(error) {
    super(error.message);
    this.kind = error.data?.kind ?? "";
    this.data = error.data ?? {};
  }
}

export class Wire extends EventTarget {
  #token;
  #keep = KEEP_SECONDS;
  #socket = null;
  #number = 0;
  #waiting = new Map();
  #heardAt = 0;
  #checking = null;
  #isUp = false;
  #isOver = false;

  /** Events: `told` with a notification, `lost`, `back` with whether it is the same connection, `end` with a reason. */
  constructor(token) {
    super();
    this.#token = token;
    this.connectionId = null;
    this.info = null;
  }

  /** Come in. Throws a `CallError` for a token that is refused. */
  async open() {
    await this.#dial();
    try {
      await this.#greet({});
    } catch (error) {
      this.#isOver = true;
      this.#drop();
      throw error;
    }
    this.#isUp = true;
    this.#checking = setInterval(() => this.#check(), CHECK_MS);
  }

  close(why = "") {
    if (!this.#isOver) {
      this.#isOver = true;
      this.#token = null;
      clearInterval(this.#checking);
      this.#drop();
      this.dispatchEvent(new CustomEvent("end", { detail: why }));
    }
  }

  call(method, params = {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.#number;
      if (this.#send({ id, method, params })) {
        this.#waiting.set(id, { resolve, reject, at: Date.now() });
      } else {
        reject(new Error("the connection is lost"));
      }
    });
  }

  /** Give a socket up on which no answer comes: a network that is gone closes none. */
  #check() {
    const [oldest] = this.#waiting.values();
    if (this.#isUp && oldest !== undefined && Date.now() - Math.max(oldest.at, this.#heardAt) > SILENCE_MS) {
      this.#lost();
    }
  }

  #send(message) {
    const isOpen = this.#socket?.readyState === WebSocket.OPEN;
    if (isOpen) {
      this.#socket.send(JSON.stringify(message));
    }
    return isOpen;
  }

  #dial() {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws"), ["execsrv"]);
    this.#socket = socket;
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onmessage = (event) => this.#heard(JSON.parse(event.data));
      socket.onclose = () => {
        reject(new Error("the server does not answer"));
        this.#lost();
      };
    });
  }

  /** Leave the socket, whatever it is about to say. */
  #drop() {
    if (this.#socket !== null) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
    for (const asked of this.#waiting.values()) {
      asked.reject(new Error("the connection is lost"));
    }
    this.#waiting.clear();
  }

  /** Say who we are: the token goes with the first message, since a browser does not tell why an upgrade is refused. */
  async #greet(which) {
    const hello = { clientName: "page", token: this.#token, keep: this.#keep, ...which };
    let answer;
    try {
      answer = await this.call("initialize", which.resumeSessionId ? hello : { name: pageName(), ...hello });
    } catch (error) {
      if (error.data?.limit === "max_keep" && this.#keep !== null) {
        this.#keep = Math.floor(error.data.value) || null;
        return this.#greet(which);
      }
      throw error;
    }
    this.connectionId = answer.sessionId;
    this.info = answer.environmentInfo;
    this.#send({ method: "initialized" });
  }

  #heard(message) {
    this.#heardAt = Date.now();
    const asked = this.#waiting.get(message.id);
    if (message.method !== undefined) {
      this.dispatchEvent(new CustomEvent("told", { detail: message }));
    } else if (asked !== undefined) {
      this.#waiting.delete(message.id);
      if (message.error !== undefined) {
        asked.reject(new CallError(message.error));
      } else {
        asked.resolve(message.result);
      }
    }
  }

  async #lost() {
    this.#drop();
    if (!this.#isUp) {
      return; // whoever dials or greets hears of it
    }
    this.#isUp = false;
    this.dispatchEvent(new Event("lost"));
    for (let pause = FIRST_PAUSE_MS; !this.#isOver; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      try {
        const isSame = await this.#return();
        this.#isUp = true;
        this.dispatchEvent(new CustomEvent("back", { detail: isSame }));
        return;
      } catch (error) {
        this.#drop();
        if (error.kind === "unauthorized") {
          this.close(error.message);
        }
      }
      await new Promise((again) => setTimeout(again, pause));
    }
  }

  /** Take the connection up again, or begin anew where the server does not know it any more. */
  async #return() {
    await this.#dial();
    try {
      await this.#greet({ resumeSessionId: this.connectionId });
      return true;
    } catch (error) {
      if (error.kind !== "unknown-session") {
        throw error;
      }
    }
    await this.#greet({});
    return false;
  }
}

function pageName() {
  return `page-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
}

export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
