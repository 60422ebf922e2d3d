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

/** Whom the reader asks about: id:HEX, NAME:key:JSON or NAME:ROW. Throws Malformed for anything else. */
async function parseName(text) {
  const said = text.trim();
  const mark = said.indexOf(":key:");
  const colon = said.lastIndexOf(":");
  if (said.startsWith("id:")) return { words: said, id: fromHex(said.slice(3).toLowerCase(), "an id", 32) };
  form(
    !/^(?:key|file|row):/.test(said),
    "name a sample by id:HEX, NAME:key:JSON or NAME:ROW; choose a file below to ask about a content",
  );
  form(
    mark >= 0 || (colon >= 0 && DECIMAL.test(said.slice(colon + 1))),
    "name a sample by id:HEX, NAME:key:JSON or NAME:ROW",
  );
  const json = mark >= 0 ? said.slice(mark + 5) : said.slice(colon + 1);
  const dataset = said.slice(0, mark >= 0 ? mark : colon);
  const key = keyOf(await readJson(json, { depth: 15, values: 10_000, digits: 20 }, async () => {}));
  return { words: said, preimage: join([0x83], encode("fgtrac id v1"), encode(dataset), encode(key)) };
}

/** A file of the reader's, as a content. */
function contentOf(name, digest) {
  return { words: `file:${name}`, preimage: join([0x82], encode("fgtrac content v1"), encode(digest)), source: "file" };
}

/** The key that JSON stands for: {"hex": "00ff"} is bytes. */
function keyOf(value) {
  if (Array.isArray(value)) return value.map(keyOf);
  if (value instanceof Map) return fromHex(readFields(value, "a key in JSON", ["hex"]).hex, "the bytes of a key");
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
  if (Array.isArray(value)) return join(head(4, BigInt(value.length)), ...value.map(encode));
  form(!isText(value) || !/\p{Cs}/u.test(value), "half a character is no text");
  const raw = isText(value) ? toUtf8(value) : value;
  return join(head(isText(value) ? 3 : 2, BigInt(raw.length)), raw);
}
