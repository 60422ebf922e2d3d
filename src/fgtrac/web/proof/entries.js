// Entries of the log: deterministic CBOR, and the fields of each kind (docs/spec/entries.md).

/** A typed array of RFC 8746; `tag` tells it from a byte string. Of float16 only the bits. */
class Column {
  constructor(tag, bytes) {
    const type = COLUMN_TYPES[tag];
    need(type !== undefined && bytes.length % type.BYTES_PER_ELEMENT === 0, "CBOR: no typed array");
    this.tag = tag;
    this.values = new type(bytes.slice().buffer);
    this.length = this.values.length;
  }
}
const COLUMN_TYPES = {
  64: Uint8Array,
  69: Uint16Array,
  70: Uint32Array,
  71: BigUint64Array,
  84: Uint16Array,
  85: Float32Array,
  86: Float64Array,
};

/** Deterministic CBOR: integers as BigInt, floats as numbers, maps as Map. What is not the one encoding is refused. */
class Cbor {
  constructor(data) {
    this.data = data;
    this.at = 0;
    this.room = 1 << 18;
    this.value = this.read(0);
    need(this.at === data.length, "CBOR: bytes behind the value");
  }

  take(size) {
    need(size <= this.data.length - this.at, "CBOR ends in the middle of a value");
    return this.data.subarray(this.at, (this.at += Number(size)));
  }

  head() {
    const [first] = this.take(1);
    const major = first >> 5;
    const info = first & 31;
    need(info < 28, "CBOR: an indefinite length or a reserved head");
    if (info < 24) return [major, info, BigInt(info)];
    const argument = BigInt("0x" + toHex(this.take(1 << (info - 24))));
    need(major === 7 || argument >= [24n, 1n << 8n, 1n << 16n, 1n << 32n][info - 24], "CBOR: a head that is too long");
    return [major, info, argument];
  }

  read(depth) {
    const start = this.at;
    const [major, info, argument] = this.head();
    if (major === 0) return argument;
    if (major === 2) return this.take(argument).slice();
    if (major === 3) return this.text(argument);
    if (major === 1) {
      need(argument < 1n << 63n, "CBOR: a number below -2^63");
      return -1n - argument;
    }
    if (major === 6) {
      const [inner, , size] = this.head();
      need(inner === 2, "CBOR: a tag of no typed array");
      return new Column(argument, this.take(size));
    }
    if (major === 7) {
      if (info === 20 || info === 21) return info === 21;
      need(info === 27, "CBOR: a value that no entry has");
      const number = new DataView(this.data.buffer, this.data.byteOffset + start + 1).getFloat64(0);
      need(!Number.isNaN(number), "CBOR: NaN outside an array");
      return number;
    }
    need(
      depth < 16 && argument <= this.data.length - this.at && (this.room -= Number(argument)) >= 0,
      "CBOR: too deep or too many",
    );
    if (major === 4) return Array.from({ length: Number(argument) }, () => this.read(depth + 1));
    const found = new Map();
    for (let i = 0n, before = new Uint8Array(0); i < argument; i++) {
      const from = this.at;
      const [kind, , size] = this.head();
      need(kind === 3, "CBOR: a map key that is no text");
      const name = this.text(size);
      const encoded = this.data.subarray(from, this.at);
      need(compare(before, encoded) < 0, "CBOR: map keys are not in order");
      before = encoded;
      found.set(name, this.read(depth + 1));
    }
    return found;
  }

  text(size) {
    try {
      return strictUtf8.decode(this.take(size));
    } catch (error) {
      throw error instanceof Refuted ? error : new Refuted("CBOR: text that is no UTF-8");
    }
  }
}

const isOctets = (size) => (value) => value instanceof Uint8Array && value.length === size;
const isColumn = (tag) => (value) => value instanceof Column && value.tag === BigInt(tag);
const isInteger = (value) => typeof value === "bigint" && value >= 0n;
const isText = (value) => typeof value === "string";
const isReference = (value) =>
  Array.isArray(value) && value.length === 2 && isOctets(16)(value[0]) && isInteger(value[1]);
const listOf = (test) => (value) => Array.isArray(value) && value.every(test);
const mapOf = (test) => (value) => value instanceof Map && [...value.values()].every(test);
const TYPES = {
  integer: isInteger,
  text: isText,
  one: (value) => value === 1n,
  boolean: (value) => typeof value === "boolean",
  float: (value) => typeof value === "number",
  bytes: (value) => value instanceof Uint8Array,
  map: mapOf(() => true),
  bytes16: isOctets(16),
  bytes32: isOctets(32),
  bytes64: isOctets(64),
  reference: isReference,
  references: listOf(isReference),
  ids: (value) => value instanceof Uint8Array && value.length > 0 && value.length % 32 === 0,
  texts: listOf(isText),
  u8: isColumn(64),
  u32: isColumn(70),
  u64: isColumn(71),
  f16: isColumn(84),
  f32: isColumn(85),
  f64: isColumn(86),
  "map-of-text": mapOf(isText),
  "map-of-integers": mapOf(isInteger),
  "map-of-numbers": mapOf((value) => typeof value === "bigint" || typeof value === "number"),
};
const OPERATIONS =
  "filter|map|deduplicate|split|select|sort|shuffle|concatenate|join|explode|aggregate|tokenise|pack|record|apply";
const ALWAYS = "kind:text time:integer writer:bytes16 seq:integer ";
const KINDS = {
  // FIELD:TYPE, a ? behind a field that may be absent; several words joined by | are all that it may say
  run:
    "trace:bytes16 format:one public_key:bytes32 id_scheme:public|keyed key_commitment?:bytes32 git_commit?:text " +
    "git_dirty?:boolean versions:map-of-text config?:map config_artifact?:text",
  dataset:
    "name:text id_scheme:public|keyed|subject rows?:integer keys?:rows|numbers|names content?:text beside?:boolean",
  samples: "dataset:text block:bytes16 part:integer parts:integer ids:ids contents?:ids subjects?:ids",
  roles: "role:train|validation|test|excluded block:bytes16 ordinals:u32",
  transform:
    `stage:text operation:${OPERATIONS} block:bytes16 parameters?:map code?:bytes32 output?:text kept?:u32 ` +
    "dropped?:u32 same_as?:bytes child_block?:bytes16 parents?:u32 children?:u32 starts?:u32 stops?:u32",
  sampler: "loader:integer epoch:integer sampler:text parameters?:map state?:bytes state_commitment?:bytes32",
  use:
    "loader:integer optimizer:integer block:bytes16 epoch:u32 batch:u32 step:u64 status:u8 attribution:u8 count:u32 " +
    "ordinals:u32 losses?:f16 graph?:sampled|whole hops?:integer hop_count?:u32 hop_ordinals?:u32 fit?:text",
  metrics: "step:integer values:map-of-numbers",
  attention: "checkpoint:reference step:integer modalities:texts block:bytes16 ordinals:u32 weights:f32",
  checkpoint: "step:integer epoch?:integer val_loss?:float learning_rates?:f64 digest?:bytes32 kept:boolean rule:text",
  artifact: "path:text sha256:bytes32 size:integer media_type:text about:text",
  contribution:
    "checkpoint:reference step:integer target:text method:text block:bytes16 ordinals:u32 scores:f32 parameters?:map",
  prediction: "checkpoint?:reference step:integer block:bytes16 ordinals:u32 outputs?:f32 losses?:f32",
  resume: "writers:references step:integer",
  join: "rank:integer ranks:integer step:integer began:reference",
  leave: "",
  gap: "reason:text lost_writer?:bytes16 first?:integer stop?:integer detail?:text",
  end: "writers:references",
  key: "public_key:bytes32 old_signature:bytes64 new_signature:bytes64 revoked?:boolean",
  erasure: "pseudonym:bytes32 block:bytes16 ordinals:u32 artifacts:texts",
  seal: "root:bytes32 leaves:integer entries:integer counts:map-of-integers epoch_steps:u64",
};
const FIELDS = new Map(
  Object.entries(KINDS).map(([kind, said]) => [
    kind,
    new Map(
      (ALWAYS + said)
        .trim()
        .split(" ")
        .map((field) => {
          const [, name, mark, type] = /^([a-z0-9_]+)(\??):(.+)$/.exec(field);
          return [
            name,
            {
              isOptional: mark === "?",
              fits: TYPES[type] ?? ((value) => isText(value) && type.split("|").includes(value)),
            },
          ];
        }),
    ),
  ]),
);

/** An entry's fields: its kind's, each of its type, with lengths that fit each other. */
function decodeEntry(data) {
  const found = new Cbor(data).value;
  const kind = found instanceof Map ? found.get("kind") : undefined;
  const fields = FIELDS.get(kind);
  need(fields !== undefined, "an entry of no known kind");
  for (const [name, value] of found)
    need(fields.get(name)?.fits(value), `the ${kind} entry's field ${name.slice(0, 60)}`);
  for (const [name, { isOptional }] of fields) need(isOptional || found.has(name), `a ${kind} entry without ${name}`);
  const e = Object.fromEntries(found);
  const fit = FITS[kind];
  need(fit === undefined || fit(e), `the fields of a ${kind} entry do not fit each other`);
  return e;
}

const areAsLong = (e, first, ...others) => others.every((name) => !(name in e) || e[name].length === e[first].length);
const allOrNone = (e, ...names) => new Set(names.map((name) => name in e)).size === 1;
const add = (column) => column.values.reduce((sum, n) => sum + n, 0);
const FITS = {
  run: (e) => e.id_scheme !== "keyed" || "key_commitment" in e,
  samples: (e) => areAsLong(e, "ids", "contents", "subjects") && e.part < e.parts && doIdsAscend(e.ids),
  transform: fitTransform,
  use: fitUse,
  attention: (e) => e.weights.length === e.ordinals.length * e.modalities.length,
  contribution: (e) => areAsLong(e, "ordinals", "scores"),
  prediction: (e) =>
    areAsLong(e, "ordinals", "losses") &&
    (e.ordinals.length ? (e.outputs?.length ?? 0) % e.ordinals.length === 0 : !e.outputs?.length),
  join: (e) => e.rank < e.ranks,
  gap: (e) => allOrNone(e, "lost_writer", "first", "stop") && (!("first" in e) || e.first < e.stop),
};

function idAt(ids, place) {
  return ids.subarray(32 * place, 32 * place + 32);
}

function doIdsAscend(ids) {
  for (let i = 1; i < ids.length / 32; i++) if (compare(idAt(ids, i - 1), idAt(ids, i)) >= 0) return false;
  return true;
}

function fitTransform(e) {
  const hasSpans = "starts" in e || "stops" in e;
  return (
    allOrNone(e, "child_block", "parents", "children") &&
    (!("parents" in e) || areAsLong(e, "parents", "children")) &&
    (!hasSpans ||
      ("parents" in e &&
        "starts" in e &&
        "stops" in e &&
        areAsLong(e, "parents", "starts", "stops") &&
        e.starts.values.every((start, i) => start <= e.stops.values[i]))) &&
    ("parents" in e || "kept" in e || "dropped" in e) &&
    (!("same_as" in e) || ("dropped" in e && e.same_as.length === 32 * e.dropped.length))
  );
}

function fitUse(e) {
  const isCode = (column, most) => column.values.every((code) => code >= 1 && code <= most);
  const hasHops = ["graph", "hops", "hop_count", "hop_ordinals"].some((name) => name in e);
  return (
    areAsLong(e, "count", "epoch", "batch", "step", "status", "attribution") &&
    areAsLong(e, "ordinals", "losses") &&
    e.count.length > 0 &&
    add(e.count) === e.ordinals.length &&
    isCode(e.status, 3) &&
    isCode(e.attribution, 5) &&
    e.step.values.every((step, i) => (step === NONE) === (e.status.values[i] !== APPLIED)) &&
    (!("fit" in e) || e.attribution.values.every((code) => code > FIFO)) &&
    (!hasHops ||
      (allOrNone(e, "graph", "hops", "hop_count", "hop_ordinals") &&
        BigInt(e.hop_count.length) === BigInt(e.count.length) * e.hops &&
        add(e.hop_count) === e.hop_ordinals.length))
  );
}
