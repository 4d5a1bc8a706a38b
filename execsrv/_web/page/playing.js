// Plays recordings, by the player that is in the pages of recordings too.

let loaded = null;

function load() {
  loaded ??= new Promise((resolve, reject) => {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "/web/player.css";
    const script = document.createElement("script");
    script.src = "/web/player.js";
    script.onload = () => resolve();
    script.onerror = () => reject(new Error("the player cannot be loaded"));
    document.head.append(style, script);
  });
  return loaded;
}

/** Play an asciicast in an element. Return the player, with `dispose`. Throws for a text that is none. */
export async function play(text, place) {
  let header;
  try {
    header = JSON.parse(text.split("\n", 1)[0]);
  } catch {
    header = {};
  }
  if (![2, 3].includes(header?.version)) {
    throw new Error("that is no asciicast: its first line is not the header of one");
  }
  await load();
  const lines = text.trimEnd().split("\n");
  try {
    JSON.parse(lines.at(-1));
  } catch {
    lines.pop(); // it is still being written, or its writer was killed
  }
  const options = { autoPlay: true, fit: "both", terminalFontSize: "15px" };
  return globalThis.AsciinemaPlayer.create({ data: lines.join("\n") }, place, options);
}
