// The data block of the page: see bae_lens/report/packing.py.

const KINDS = { Uint8Array, Uint16Array, Uint32Array, Int32Array, Float32Array };

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const decoded = atob(text);
  const bytes = new Uint8Array(decoded.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = decoded.charCodeAt(i);
  return bytes;
}

async function unpack(text) {
  const stream = new Blob([fromBase64(text.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  const block = await new Response(stream).arrayBuffer();
  const size = new DataView(block).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(block, 4, size)));
  const arrays = {};
  for (const [name, { kind, at, length, shape }] of Object.entries(header.arrays)) {
    arrays[name] = new KINDS[kind](block, 4 + size + at, length);
    arrays[name].width = shape.slice(1).reduce((product, n) => product * n, 1);
  }
  return { values: header.values, arrays };
}
