// What a reader names: the key that is trusted, an id key, whom the claim should be about.

const keyIdOf = (name, publicKey) => sha256(join(toUtf8(name), [10, 1], publicKey)).subarray(0, 4);

/** The trusted key: {publicKey, and of a vkey its name}. Malformed: neither 64 hex digits nor a vkey. */
function parseKey(text) {
  const said = text.trim();
  const [name, keyId, material, ...more] = said.split("+");
  if (/^[0-9a-fA-F]{64}$/.test(said)) return { publicKey: fromHex(said.toLowerCase(), "the key", 32) };
  const raw = fromBase64(
    [material, ...more].join("+"),
    "a key is 64 hex digits or a vkey (name+id+base64); what you gave",
  );
  form(
    KEY_NAME.test(name) && raw.length === 33 && raw[0] === 1,
    "a key is 64 hex digits or an Ed25519 vkey (name+id+base64)",
  );
  const publicKey = raw.slice(1);
  form(
    keyId === toHex(keyIdOf(name, publicKey)),
    "the vkey's key id is not that of its name and key: it was copied wrongly",
  );
  return { name, publicKey };
}

function parseIdKey(text) {
  const said = text.trim();
  form(/^[0-9a-fA-F]{64}$/.test(said), "an id key is 64 hex digits");
  return fromHex(said.toLowerCase(), "the id key", 32);
}

const KEY_NUMBERS = /(?:-?0|[1-9][0-9]{0,19})(?![0-9.eE])/y;

/**
 * Whom the reader asks about: id:HEX, NAME:key:JSON or NAME:ROW, by the grammar of `fgtrac verify --about`. No blank is
 * taken off: a data set may be named with one. Throws Malformed for anything else.
 */
async function parseName(text) {
  const mark = text.indexOf(":key:");
  const colon = text.lastIndexOf(":");
  if (text.startsWith("id:")) return { words: text, id: fromHex(text.slice(3).toLowerCase(), "an id", 32) };
  form(
    !/^(?:key|file|row):/.test(text),
    "name a sample by id:HEX, NAME:key:JSON or NAME:ROW; choose a file below to ask about a content",
  );
  const row = /:[0-9]{1,19}$/.test(text) ? BigInt(text.slice(colon + 1)) : undefined;
  form(mark >= 0 || row !== undefined, "name a sample by id:HEX, NAME:key:JSON or NAME:ROW");
  const dataset = text.slice(0, mark >= 0 ? mark : colon);
  const how = { depth: 16, values: MAX_VALUES, number: KEY_NUMBERS, isTwiceFine: true };
  const key = mark >= 0 ? keyOf(await readJson(text.slice(mark + 5), how, async () => {}), 15) : row;
  return { words: text, preimage: join([0x83], encode("fgtrac id v1"), encode(dataset), encode(key)) };
}

/** A file of the reader's, as a content. */
function contentOf(name, digest) {
  return { words: `file:${name}`, preimage: join([0x82], encode("fgtrac content v1"), encode(digest)), source: "file" };
}

/** The key that JSON stands for: {"hex": "00ff"} is bytes, in any case and with blanks between them. */
function keyOf(value, depth) {
  if (Array.isArray(value)) {
    form(depth > 0, "a key is nested too deep");
    return value.map((part) => keyOf(part, depth - 1));
  }
  if (value instanceof Map) {
    const { hex } = readFields(value, "a key in JSON", ["hex"]);
    form(isText(hex), "the bytes of a key are no text");
    return joined(hex.toLowerCase().split(/[\t-\r ]/).map((part) => fromHex(part, "the bytes of a key")));
  }
  form(isText(value) || value <= NONE, "a number of more than 64 bits is no key");
  return value;
}

/** Deterministic CBOR of a key. */
function encode(value) {
  const head = (major, n) => {
    const size = [24n, 1n << 8n, 1n << 16n, 1n << 32n].findIndex((least) => n < least);
    const bytes = size === 0 ? 0 : size < 0 ? 8 : 1 << (size - 1);
    const hex = n.toString(16).padStart(2 * bytes, "0");
    return bytes
      ? [(major << 5) | (24 + Math.log2(bytes)), ...fromHex(hex, "a head", bytes)]
      : [(major << 5) | Number(n)];
  };
  if (typeof value === "bigint") return head(0, value);
  if (Array.isArray(value)) return joined([head(4, BigInt(value.length)), ...value.map(encode)]);
  form(!isText(value) || !/\p{Cs}/u.test(value), "half a character is no text");
  const raw = isText(value) ? toUtf8(value) : value;
  return join(head(isText(value) ? 3 : 2, BigInt(raw.length)), raw);
}
