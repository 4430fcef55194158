// What the block says of features. A row is a number among the features that are shown; a feature's own number is its index.

let values, arrays, count;
const rowOfIndex = new Map();

function open(unpacked) {
  ({ values, arrays } = unpacked);
  count = arrays.index.length;
  arrays.index.forEach((index, row) => rowOfIndex.set(index, row));
}

const indexOf = (row) => arrays.index[row];
const part = (name, row) => {
  const array = arrays[name];
  return array ? array.subarray(row * array.width, (row + 1) * array.width) : [];
};
// Texts are kept one up, so that 0 stands for none.
const textOf = (number) => values.strings[number - 1];
const texts = (name, row, most = Infinity) => {
  const found = [];
  for (const number of part(name, row)) if (number && found.length < most) found.push(textOf(number));
  return found;
};

const isBae = () => values.kind === "bae";
const named = (row) => values.comsem?.[indexOf(row)] ?? null;
const phraseOf = (row) => named(row)?.phrase ?? null;
const scoreOf = (row) => named(row)?.score ?? NaN;
const isDead = (row) => arrays.frequency[row] === 0 || arrays.frequency[row] === 1;
const isDense = (row) => arrays.frequency[row] > 0.1;

// What a feature is called in lists: its phrase, else the tokens that it fires on.
function titleOf(row) {
  const phrase = phraseOf(row);
  if (phrase) return plain(phrase);
  const tokens = texts("topToken", row, 3).map(visible);
  return tokens.length ? tokens.join(" · ") : "never fires here";
}

// What is searched is made before it is asked for, while nothing else is to do.
const haystacks = [];
function prepareSearch(from = 0) {
  if (from >= count) return;
  const end = Math.min(count, from + 400);
  for (let row = from; row < end; row++) haystack(row);
  (window.requestIdleCallback ?? setTimeout)(() => prepareSearch(end));
}
function haystack(row) {
  haystacks[row] ??= [`#${indexOf(row)}`, phraseOf(row) ?? "", ...texts("topToken", row), ...texts("up", row)].join("\n").toLowerCase();
  return haystacks[row];
}
