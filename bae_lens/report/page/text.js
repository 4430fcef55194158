// Tokens as they are shown: what cannot be seen gets a sign, and what could turn a line round is written out.

const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

function plain(text) {
  return text.replace(UNSEEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// A token by itself: spaces at its ends show.
function visible(text) {
  if (text === "") return "(part of a character)";
  return plain(text).replace(/\r/g, "⇤").replace(/\n/g, "↵").replace(/\t/g, "⇥")
    .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}

// A token in its text: white space stays, but a line break takes no line.
function inline(text) {
  return plain(text).replace(/\r/g, "").replace(/\n+/g, "↵ ").replace(/\t/g, " ");
}

function chip(text, attributes) {
  return h("bdi", { class: "token", ...attributes }, visible(text));
}
