// The form of a bundle, as strict JSON within limits (docs/spec/bundle.md, "Fields" and "Limits").

const MAX_BYTES = 64 * 1024 * 1024;
const MAX_DEPTH = 5;
const MAX_VALUES = 5_000_000;
const MAX_TEXT = 1 << 20;
const MAX_LITERAL = 12 * MAX_TEXT + 2; // UTF-16 units of a text in JSON: each character as two escapes
const MAX_ENTRY_BYTES = 65_535;
const MAX_ROWS = 1_000_000;
const MAX_ENTRIES = 100_000;
const MAX_CHILDREN = 10_000;
const MAX_PATH = 64;
const MAX_NOTE_BYTES = 1_000_000;
const MAX_SIGNATURES = 100;
const NONE = 2n ** 64n - 1n; // where a row has no step
const WITH_ROWS = ["used", "history", "never used", "label never used"];
const ABSENT = ["never registered", "content absent"];
const OF_CONTENT = ["content present", "content absent"];
const NON_USES = ["never used", "label never used"];
const OF_THE_WHOLE_RUN = ["history", ...NON_USES, ...ABSENT];
const ROLES = ["train", "validation", "test", "excluded"];
const REGISTERED = 1,
  ROLE = 2,
  TRANSFORMED = 3,
  DERIVED = 4,
  USED = 5,
  NEIGHBOUR = 6,
  DELIVERED = 7; // kinds of rows
const KEPT = 1,
  DROPPED = 2,
  HAS_CHILDREN = 3,
  APPLIED = 1,
  FIFO = 3,
  DECLARED = 4,
  AMONG = 5; // details of rows
const ROW_NAMES = [
  "",
  "registered",
  "role",
  "transformed",
  "derived",
  "used",
  "neighbour",
  "delivered",
  "attention",
  "contribution",
  "prediction",
  "erased",
];
const DETAILS = { 2: [1, 4], 3: [1, 3], 5: [1, 5], 6: [1, 65_535], 7: [2, 3] }; // least and greatest; otherwise 0
const NAMING = { attention: 8, contribution: 9, prediction: 10, erasure: 11 }; // kinds of entries that name ordinals
const DECIMAL = /^(?:0|[1-9][0-9]{0,18})$/;
const SPACE = "\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Unicode's, above U+001F
const KEY_NAME = new RegExp(`^[^+\\x00-\\x1f${SPACE}\\p{Cs}]+$`, "u");
const UNSEEN = /[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const VALUE = 1,
  NAME = 2,
  CLOSE = 4,
  COMMA = 8,
  COLON = 16,
  END = 32; // what may come next in JSON

const CODES = /(?:0|[1-9][0-9]{0,4})(?![0-9.eE])/y; // the numbers of a bundle

/** JSON without recursion: objects as Map, numbers as BigInt, those that `number` matches. No null or boolean. */
async function readJson(text, { depth, values, number, isTwiceFine = false }, breathe) {
  const open = [];
  const names = [];
  let next = VALUE,
    at = 0,
    found,
    count = 0,
    due = 0;
  const expect = (what) => form(next & what, `no strict JSON at character ${at}`);
  const put = (value) => {
    const holder = open.at(-1);
    if (holder === undefined) found = value;
    else if (holder instanceof Map) holder.set(names.at(-1), value);
    else holder.push(value);
    next = holder === undefined ? END : COMMA | CLOSE;
  };
  for (; at < text.length; at++) {
    if (at >= due) {
      await breathe("reading", at / text.length);
      due = at + 4096;
    }
    const c = text[at];
    if (c === " " || c === "\n" || c === "\r" || c === "\t") continue;
    if ((c === "," || c === ":" || c === "[" || c === "{") && ++count > values)
      throw new Malformed(`over ${values} values`);
    if (c === '"') {
      expect(VALUE | NAME);
      const start = at;
      const end = Math.min(text.length, start + MAX_LITERAL);
      for (at++; at < end && text[at] !== '"'; at++) if (text[at] === "\\") at++;
      form(at < end, "a text in JSON that does not end, or is too long");
      const said = readString(text.slice(start, at + 1));
      if (next & VALUE) put(said);
      else {
        form(isTwiceFine || !open.at(-1).has(said), "a key stands twice in one object");
        names[names.length - 1] = said;
        next = COLON;
      }
    } else if (c === "[" || c === "{") {
      expect(VALUE);
      form(open.length < depth, `nested more than ${depth} deep`);
      open.push(c === "[" ? [] : new Map());
      names.push("");
      next = CLOSE | (c === "[" ? VALUE : NAME);
    } else if (c === "]" || c === "}") {
      expect(CLOSE);
      names.pop();
      form(open.at(-1) instanceof Map === (c === "}"), "brackets that do not fit each other");
      put(open.pop());
    } else if (c === ",") {
      expect(COMMA);
      next = open.at(-1) instanceof Map ? NAME : VALUE;
    } else if (c === ":") {
      expect(COLON);
      next = VALUE;
    } else {
      expect(VALUE);
      number.lastIndex = at;
      const said = number.exec(text);
      form(said, `no whole number that can stand here, at character ${at}`);
      put(BigInt(said[0]));
      at += said[0].length - 1;
    }
  }
  expect(END);
  return found;
}

function readString(literal) {
  try {
    return JSON.parse(literal);
  } catch {
    throw new Malformed(`no JSON text: ${literal.slice(0, 60)}`);
  }
}

/** An object of these fields and no others. */
function readFields(value, what, needed, optional = []) {
  form(value instanceof Map, `${what} is no object`);
  const missing = needed.filter((name) => !value.has(name));
  const unknown = [...value.keys()].filter((name) => !needed.includes(name) && !optional.includes(name));
  form(
    !missing.length && !unknown.length,
    `${what} lacks [${missing}] or has the unknown [${unknown.join().slice(0, 60)}]`,
  );
  return Object.fromEntries(value);
}

function readList(value, what, most, least = 0) {
  form(
    Array.isArray(value) && value.length >= least && value.length <= most,
    `${what} is no list of ${least} to ${most}`,
  );
  return value;
}

/** Text within a limit of code points, which are fewer than its UTF-16 units where there are pairs. */
function readText(value, what, most = MAX_TEXT) {
  const isShort = () => value.length <= most || (value.length <= 2 * most && countCharacters(value) <= most);
  form(typeof value === "string" && isShort(), `${what} is no text, or too long`);
  return value;
}

function countCharacters(text) {
  let count = 0;
  for (let at = 0; at < text.length; count++) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return count;
}

function readNumber(value, what) {
  form(typeof value === "string" && DECIMAL.test(value), `${what} is no decimal string below 10^19`);
  return BigInt(value);
}

function readCode(value, what, below) {
  form(typeof value === "bigint" && value < below, `${what} is no number below ${below}`);
  return Number(value);
}

function readEntry(value, what) {
  const entry = fromBase64(readText(value, what, 2 * MAX_ENTRY_BYTES), what);
  form(entry.length <= MAX_ENTRY_BYTES, `${what} has more than ${MAX_ENTRY_BYTES} bytes`);
  return entry;
}

function readHash(value, what) {
  const hash = fromBase64(readText(value, what, 44), what);
  form(hash.length === 32, `${what} has not 32 bytes`);
  return hash;
}

/** An audit path: its hashes end to end. */
function readPath(value, what) {
  return join(...readList(value, what, MAX_PATH).map((hash) => readHash(hash, what)));
}

function readLeaf(value, what, more = []) {
  const said = readFields(value, what, ["index", "path", ...more]);
  return { ...said, index: readNumber(said.index, `${what}.index`), path: readPath(said.path, `${what}.path`) };
}

function readNeighbour(value, what) {
  const said = readLeaf(value, what, ["type", "key", "digest"]);
  const key = join([readCode(said.type, `${what}.type`, 256)], fromHex(said.key, `${what}.key`, 32));
  return { index: said.index, path: said.path, key, data: join(key, fromHex(said.digest, `${what}.digest`, 32)) };
}

/** A sample's rows as columns. */
async function readRows(value, breathe) {
  const list = readList(value, "rows", MAX_ROWS, 1);
  const n = list.length;
  const rows = {
    n,
    kind: new Uint8Array(n),
    detail: new Uint16Array(n),
    entry: new BigUint64Array(n),
    step: new BigUint64Array(n),
  };
  for (let i = 0; i < n; i++) {
    if ((i & 4095) === 4095) await breathe("reading rows", i / n);
    const [kind, detail, entry, step] = readList(list[i], "a row", 4, 4);
    rows.kind[i] = readCode(kind, "the kind of a row", ROW_NAMES.length);
    const [least, most] = DETAILS[rows.kind[i]] ?? [0, 0];
    rows.detail[i] = readCode(detail, "the detail of a row", 65_536);
    rows.entry[i] = readNumber(entry, "the entry of a row");
    rows.step[i] = step === "none" ? NONE : readNumber(step, "the step of a row");
    form(rows.kind[i] > 0 && rows.detail[i] >= least && rows.detail[i] <= most, "a row of no known kind and detail");
    form(step !== "none" || !isUse(rows.kind[i]), "a row of use without a step");
    form(i === 0 || isAscending(rows, i - 1, i), "rows do not ascend");
  }
  return rows;
}

const isUse = (kind) => kind === USED || kind === NEIGHBOUR;

function isAscending(rows, a, b) {
  if (rows.entry[a] !== rows.entry[b]) return rows.entry[a] < rows.entry[b];
  if (rows.kind[a] !== rows.kind[b]) return rows.kind[a] < rows.kind[b];
  return rows.detail[a] !== rows.detail[b] ? rows.detail[a] < rows.detail[b] : rows.step[a] <= rows.step[b];
}

/** The entries that chosen rows name, each once; rows ascend by entry. */
function distinct(rows, isChosen) {
  const out = [];
  for (let i = 0; i < rows.n; i++) if (isChosen(i) && out.at(-1) !== rows.entry[i]) out.push(rows.entry[i]);
  return out;
}

/** A c2sp.org/tlog-proof@v1 without `extra` lines, with the signed note of a trace's head (log.md). */
function readProof(text) {
  const cut = text.indexOf("\n\n");
  const [header, second, ...hashes] = text.slice(0, Math.max(cut, 0)).split("\n");
  form(cut >= 0 && header === "c2sp.org/tlog-proof@v1" && (second ?? "").startsWith("index "), "no tlog-proof");
  const index = readNumber(second.slice(6), "a proof's index");
  const path = readPath(hashes, "a proof's path");
  const note = text.slice(cut + 2);
  const end = note.lastIndexOf("\n\n");
  form(toUtf8(note).length <= MAX_NOTE_BYTES, `a note of more than ${MAX_NOTE_BYTES} bytes`);
  form(end >= 0 && note.endsWith("\n"), "a note without its lines of signatures");
  const head = note.slice(0, end + 1);
  const [origin, size, root, rest, ...more] = head.split("\n");
  form(rest === "" && !more.length && /^fgtrac\/[0-9a-f]{32}$/.test(origin), "no tree head of a trace");
  const lines = readList(
    note
      .slice(end + 2)
      .split("\n")
      .slice(0, -1),
    "signatures",
    MAX_SIGNATURES,
    1,
  ).map(readSignature);
  return {
    index,
    path,
    head,
    origin,
    size: readNumber(size, "a head's size"),
    root: readHash(root, "a head's root"),
    lines,
  };
}

function readSignature(line) {
  const [dash, name, said, ...more] = line.split(" ");
  form(dash === "\u2014" && said !== undefined && !more.length && KEY_NAME.test(name), "no signature line");
  const raw = fromBase64(said, "a signature");
  form(raw.length > 4, "a signature line without a signature");
  return { name, keyId: raw.subarray(0, 4), signature: raw.subarray(4) };
}

/** The decoded fields of a bundle's bytes. Throws Malformed for anything else. */
async function readBundle(bytes, breathe) {
  form(bytes.length <= MAX_BYTES, `more than ${MAX_BYTES} bytes`);
  let text;
  try {
    text = strictUtf8.decode(bytes);
  } catch {
    throw new Malformed("no UTF-8");
  }
  const value = await readJson(text, { depth: MAX_DEPTH, values: MAX_VALUES, number: CODES }, breathe);
  text = "";
  const claim = value instanceof Map ? value.get("claim") : undefined;
  const hasRows = WITH_ROWS.includes(claim);
  form(hasRows || ABSENT.includes(claim) || claim === "content present", "no claim that is known");
  const column = hasRows ? ["rows"] : ABSENT.includes(claim) ? [] : ["holders"];
  const needed = ["format", "claim", "words", "id", "index", "seal", ...column];
  const said = readFields(value, "a bundle", needed, hasRows ? ["entries", "children"] : ["entries"]);
  form(said.format === "fgtrac-bundle/v1", "another format than fgtrac-bundle/v1");
  const id = readFields(said.id, "id", ["value"], ["preimage", "opening"]);
  const bundle = { claim, words: readText(said.words, "words"), id: fromHex(id.value, "id.value", 32) };
  if ("preimage" in id) bundle.preimage = readPreimage(id.preimage);
  if ("opening" in id) bundle.opening = fromHex(id.opening, "id.opening", 32);
  if (ABSENT.includes(claim)) {
    const index = readFields(said.index, "index", [], ["left", "right"]);
    if ("left" in index) bundle.left = readNeighbour(index.left, "index.left");
    if ("right" in index) bundle.right = readNeighbour(index.right, "index.right");
  } else bundle.leaf = readLeaf(readFields(said.index, "index", ["leaf"]).leaf, "index.leaf");
  const seal = readFields(said.seal, "seal", ["entry", "proof"]);
  bundle.seal = readEntry(seal.entry, "seal.entry");
  bundle.proof = readProof(readText(seal.proof, "seal.proof"));
  bundle.rows = hasRows ? await readRows(said.rows, breathe) : undefined;
  bundle.holders = "holders" in said ? await readHolders(said.holders, breathe) : undefined;
  bundle.entries = await readAll(said.entries ?? [], "entries", MAX_ENTRIES, breathe, (one) => {
    const { number, entry, path } = readFields(one, "an entry", ["number", "entry", "path"]);
    return {
      number: readNumber(number, "an entry's number"),
      path: readPath(path, "an entry's path"),
      entry: readEntry(entry, "an entry"),
    };
  });
  bundle.children = await readAll(said.children ?? [], "children", MAX_CHILDREN, breathe, async (one) => {
    const { id, rows, leaf } = readFields(one, "a child", ["id", "rows", "leaf"]);
    return {
      id: fromHex(id, "a child's id", 32),
      rows: await readRows(rows, breathe),
      leaf: readLeaf(leaf, "a child's leaf"),
    };
  });
  const ascends = (items, isBefore) => items.every((item, i) => i === 0 || isBefore(items[i - 1], item));
  form(
    ascends(bundle.entries, (a, b) => a.number < b.number),
    "entries do not ascend",
  );
  form(
    ascends(bundle.children, (a, b) => compare(a.id, b.id) < 0),
    "children do not ascend",
  );
  const rows = bundle.children.reduce((sum, child) => sum + child.rows.n, bundle.rows?.n ?? 0);
  form(rows <= MAX_ROWS, `more than ${MAX_ROWS} rows`);
  return bundle;
}

function readPreimage(value) {
  return fromHex(readText(value, "id.preimage", 2 * MAX_ENTRY_BYTES), "id.preimage");
}

/** The ids that hold a content, end to end. */
async function readHolders(value, breathe) {
  const list = readList(value, "holders", MAX_ROWS, 1);
  const out = new Uint8Array(32 * list.length);
  for (let i = 0; i < list.length; i++) {
    if ((i & 4095) === 4095) await breathe("reading holders", i / list.length);
    out.set(fromHex(list[i], "a holder", 32), 32 * i);
    form(i === 0 || list[i - 1] < list[i], "holders do not ascend");
  }
  return out;
}

async function readAll(list, what, most, breathe, read) {
  const out = [];
  for (const item of readList(list, what, most)) {
    if ((out.length & 255) === 255) await breathe(`reading ${what}`, out.length / list.length);
    out.push(await read(item));
  }
  return out;
}
