// The protocol, over a websocket: calls with their answers, notifications, and a connection that is taken up again.

const TRY_AGAIN_MS = 500;
const KEEP_SECONDS = 120;

export class Refused extends Error {}

/** An answer of the server that is an error. `kind` is a stable word. */
export class CallError extends Error {
  constructor(error) {
    super(error.message);
    this.kind = error.data?.kind ?? "";
  }
}

export class Wire extends EventTarget {
  #token;
  #socket = null;
  #number = 0;
  #waiting = new Map();
  #over = false;

  /** Events: `told` with a notification, `lost`, `back` with `resumed`, and `end` with a reason. */
  constructor(token) {
    super();
    this.#token = token;
    this.connectionId = null;
    this.info = null;
  }

  async open() {
    await this.#dial();
    try {
      await this.#greet(null);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close() {
    this.#over = true;
    this.#token = null;
    this.#socket?.close(1000);
  }

  call(method, params = {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.#number;
      this.#waiting.set(id, { resolve, reject });
      this.#send({ id, method, params });
    });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify(message));
    } else {
      this.#waiting.get(message.id)?.reject(new Error("the connection is lost"));
      this.#waiting.delete(message.id);
    }
  }

  #dial() {
    const protocols = ["execsrv", `execsrv.token.${this.#token}`];
    let socket;
    try {
      socket = new WebSocket(location.origin.replace(/^http/, "ws"), protocols);
    } catch {
      return Promise.reject(new Refused("a token has no such characters"));
    }
    return new Promise((resolve, reject) => {
      let isOpen = false;
      socket.onopen = () => {
        isOpen = true;
        this.#socket = socket;
        resolve();
      };
      socket.onmessage = (event) => this.#heard(JSON.parse(event.data));
      socket.onclose = async (event) => {
        if (isOpen) {
          this.#lost(event.reason);
        } else if (await isThere()) {
          reject(new Refused("the server has refused the token"));
        } else {
          reject(new Error("the server does not answer"));
        }
      };
    });
  }

  async #greet(resumeSessionId) {
    const hello = { clientName: "page", resumeSessionId, keep: KEEP_SECONDS };
    const answer = await this.call("initialize", resumeSessionId ? hello : { ...hello, name: pageName() });
    this.connectionId = answer.sessionId;
    this.info = answer.environmentInfo;
    this.#send({ method: "initialized" });
  }

  #heard(message) {
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

  async #lost(reason) {
    for (const asked of this.#waiting.values()) {
      asked.reject(new Error("the connection is lost"));
    }
    this.#waiting.clear();
    this.#socket = null;
    if (this.#over) {
      this.dispatchEvent(new CustomEvent("end", { detail: "" }));
      return;
    }
    if (this.connectionId === null) {
      return; // the greeting says so
    }
    this.dispatchEvent(new CustomEvent("lost", { detail: reason }));
    const until = Date.now() + KEEP_SECONDS * 1000;
    while (!this.#over && Date.now() < until) {
      try {
        await this.#dial();
        const resumed = await this.#come(this.connectionId);
        this.dispatchEvent(new CustomEvent("back", { detail: resumed }));
        return;
      } catch (error) {
        if (error instanceof Refused) {
          this.#end(error.message);
          return;
        }
      }
      await new Promise((again) => setTimeout(again, TRY_AGAIN_MS));
    }
    this.#end(this.#over ? "" : "there is no way back to the server");
  }

  /** Take the connection up again, or begin anew. Return whether it is the same one. */
  async #come(id) {
    try {
      await this.#greet(id);
      return true;
    } catch (error) {
      if (!(error instanceof CallError) || error.kind === "already-attached") {
        this.#drop();
        throw error;
      }
    }
    await this.#greet(null);
    return false;
  }

  #drop() {
    if (this.#socket !== null) {
      this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
  }

  #end(why) {
    this.close();
    this.dispatchEvent(new CustomEvent("end", { detail: why }));
  }
}

async function isThere() {
  try {
    return (await fetch("/livez", { cache: "no-store" })).ok;
  } catch {
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
