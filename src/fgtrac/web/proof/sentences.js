// What a bundle tells in words (docs/spec/bundle.md, "The words"), and the names in it (docs/spec/identity.md).

const isKey = (value) =>
  isText(value) || isInteger(value) || value instanceof Uint8Array || (Array.isArray(value) && value.every(isKey));

/** A key or a name as JSON, as bundle.md writes it; what nobody would see is escaped. */
function asJson(value) {
  if (Array.isArray(value)) return `[${value.map(asJson).join(", ")}]`;
  if (value instanceof Uint8Array) return `{"hex": "${toHex(value)}"}`;
  if (typeof value === "bigint") return String(value);
  return JSON.stringify(value).replace(UNSEEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** Who or what a preimage names: {words, and of a sample its dataset, and `parts`, the words with its names apart}. */
function namedBy(preimage, isContent) {
  const said = new Cbor(preimage).value;
  const length = isContent ? 2 : 3;
  need(Array.isArray(said) && said.length === length, "a preimage that names nothing");
  if (isContent) {
    need(said[0] === "fgtrac content v1" && isOctets(32)(said[1]), "no preimage of a content");
    return { words: `the content whose source has SHA-256 ${toHex(said[1])}` };
  }
  need(said[0] === "fgtrac id v1" && isText(said[1]) && isKey(said[2]), "no preimage of a sample");
  const parts = ["the sample with key ", asJson(said[2]), " of data set ", asJson(said[1])];
  return { words: parts.join(""), dataset: said[1], parts };
}

const keyedId = async (secret, preimage) => hmac(await hmac(secret, join(toUtf8("open"), preimage)), preimage);

/** A bundle, its entries once they are decoded, and the words that follow from them. */
class Told {
  constructor(bundle, breathe) {
    Object.assign(this, { bundle, breathe, claim: bundle.claim, id: bundle.id, proof: bundle.proof });
    this.rows = bundle.rows ?? { n: 0, kind: [], detail: [], entry: [], step: [] };
    this.lives = [{ id: bundle.id, rows: this.rows }, ...bundle.children]; // the sample and its descendants
    this.isAbsent = ABSENT.includes(this.claim);
    this.isContent = OF_CONTENT.includes(this.claim);
    this.isWhole = OF_THE_WHOLE_RUN.includes(this.claim);
    const shown = new Set(bundle.entries.map((entry) => entry.number));
    this.isEvident = WITH_ROWS.includes(this.claim) && this.rows.entry.every((number) => shown.has(number));
    this.shown = new Map(); // decoded entries by number, ascending
    this.seal = null; // the decoded `seal` entry
  }

  of(kind) {
    return [...this.shown].filter(([, e]) => e.kind === kind).map(([number, e]) => ({ number, ...e }));
  }

  scheme() {
    const named = namedBy(this.bundle.preimage, this.isContent);
    const sets = this.of("dataset").filter((e) => this.isContent || e.name === named.dataset);
    const schemes = new Set(sets.map((e) => e.id_scheme));
    return schemes.size === 1 ? [...schemes][0] : undefined;
  }

  /** What the gaps that the seal counts and the entries of a whole run say against the record; else nothing. */
  record() {
    const numbers = (kind) => this.of(kind).map((e) => e.number);
    const gaps = this.seal.counts.get("gap") ?? 0n;
    const hasEnded = (numbers("end").at(-1) ?? -1n) > (numbers("resume").at(-1) ?? -1n);
    const lacks = hasEnded && !this.hasAllRanks() ? ", and of some ranks it is not whole" : "";
    if (hasEnded && gaps === 0n && !lacks) return "";
    return ` of a run that has ${hasEnded ? "ended" : "not ended"} (gaps in its record: ${gaps}${lacks})`;
  }

  /** Whether each start of the training has each of its ranks once, and all behind rank 0 left as the last end says. */
  hasAllRanks() {
    const name = ([writer, seq]) => `${toHex(writer)} ${seq}`;
    const joins = this.of("join");
    const last = new Set((this.of("end").at(-1)?.writers ?? []).map(name));
    const left = new Set(
      this.of("leave")
        .filter((e) => last.has(name([e.writer, e.seq])))
        .map((e) => toHex(e.writer)),
    );
    const sizes = new Map();
    for (const e of joins) sizes.set(name(e.began), (sizes.get(name(e.began)) ?? 0n) + 1n);
    const places = joins
      .filter((e) => {
        const isThere = e.rank > 0n ? left.has(toHex(e.writer)) : isSame(e.writer, e.began[0]);
        return isThere && sizes.get(name(e.began)) === e.ranks;
      })
      .map((e) => `${name(e.began)} ${e.rank}`);
    return new Set(places).size === joins.length && new Set(joins.map((e) => toHex(e.writer))).size === joins.length;
  }

  async sentences() {
    const { claim, proof } = this;
    const [mine, ...below] = await this.tallies();
    this.all = [mine, ...below].reduce(sumOf);
    const said = this.claimWords(mine, below.reduce(sumOf, newTally()));
    const isUsed = claim === "used";
    const isNonUse = NON_USES.includes(claim);
    const record = this.isWhole ? this.record() : "";
    const out = [
      `${said[0].toUpperCase()}${said.slice(1)}, as committed by ${proof.origin} at size ${proof.size}${record}.`,
    ];
    const cuts = this.isWhole ? this.interruptions() : 0;
    if (cuts) out.push(`Resumes without an end before: ${cuts}. What was done last before those may be lost.`);
    const beside = mine.kinds[NEIGHBOUR];
    const { ways, undone } = this.all;
    const at = beside ? `, at hops from ${mine.least} to ${mine.greatest}` : "";
    if (beside || claim === "label never used")
      out.push(`Uses as a neighbour, with its features alone: ${beside}${at}.`);
    if (mine.whole)
      out.push(`In updates on the whole graph: ${mine.whole}, ${mine.far} of them out of the seeds' reach.`);
    if (claim === "label never used") out.push("What a model reads beside its batches is not recorded.");
    if (ways[FIFO])
      out.push(`Which update took it is assumed from the order of the batches in ${ways[FIFO]} of all uses.`);
    if (ways[DECLARED])
      out.push(`Told by the recording program itself, which nothing watched: ${ways[DECLARED]} of all uses.`);
    if (ways[AMONG]) out.push(`In batches that may have left it out: ${ways[AMONG]} of all uses.`);
    if (undone) out.push(`The run was resumed from an earlier step, which undid ${undone} of all uses.`);
    if (this.isEvident) out.push(...this.timeWords(isUsed && mine.uses > 0));
    if (isUsed) out.push(...this.stateWords(mine));
    if (isNonUse && this.all.kinds[DELIVERED]) {
      out.push(`Deliveries without an update, as far as the recorder could tell: ${this.all.kinds[DELIVERED]}.`);
    }
    const roles = ROLES.filter((_, i) => mine.roles.has(i + 1));
    if (this.rows.n)
      out.push(roles.length ? `It had the role${roles.length > 1 ? "s" : ""} ${roles.join(", ")}.` : "It had no role.");
    if (below.length)
      out.push(`Samples made from it: ${below.length}. Uses of those in updates: ${this.all.uses - mine.uses}.`);
    const isByName = this.isAbsent && this.bundle.preimage && ["public", "keyed"].includes(this.scheme());
    if (isByName) out.push("This rests on every id and content digest being made as its data set says.");
    const sources = () =>
      this.of("dataset")
        .map((e) => `${asJson(e.name)} by ${asJson(e.content ?? "unknown")}`)
        .join(", ");
    if (claim === "content absent") out.push(`Contents were taken from: ${sources()}.`);
    return out;
  }

  claimWords(mine, theirs) {
    const { preimage } = this.bundle;
    const digest = this.isContent ? "content with digest" : "sample with id";
    const who = preimage ? namedBy(preimage, this.isContent).words : `the ${digest} ${toHex(this.id)}`;
    const uses = mine.uses ? mine : theirs;
    const via = mine.uses ? "" : " through samples made from it,";
    const span =
      uses.first === uses.last ? `in step ${uses.first}` : `first in step ${uses.first}, last in step ${uses.last}`;
    const registered = `${who} is registered, and no optimizer update ever used`;
    const kinds = ROW_NAMES.map((name, kind) => `${mine.kinds[kind]} x ${name}`).filter((_, kind) => mine.kinds[kind]);
    need(this.claim !== "used" || uses.uses, `${who} has no row of use, so it cannot be shown as used`);
    need(this.claim !== "never used" || !this.all.uses, `${who}, or a sample made from it, has rows of use`);
    need(
      this.claim !== "label never used" || !this.all.kinds[USED],
      `${who}, or a sample made from it, has rows of use as a seed`,
    );
    return {
      used: `${who} was used${via} ${uses.uses === 1 ? "once" : `${uses.uses} times`} in optimizer updates, ${span}`,
      history: `the whole history of ${who} is ${kinds.join(", ")}`,
      "never used": `${registered} it or a sample made from it in any batch`,
      "label never used": `${registered} its label: neither it nor a sample made from it was ever a seed`,
      "never registered": `${who} was never registered`,
      "content present": `${who} is held by ${(this.bundle.holders ?? "").length / 32} of the registered samples`,
      "content absent": `${who} is held by no registered sample`,
    }[this.claim];
  }

  /** How often training went on that had not ended. */
  interruptions() {
    const marks = [...this.shown.values()].map((e) => e.kind).filter((kind) => kind === "end" || kind === "resume");
    return marks.filter((kind, i) => kind === "resume" && marks[i - 1] !== "end").length;
  }

  /** What the sentences count, of the sample and of each descendant. */
  async tallies() {
    const isUndone = this.undoing();
    const [state] = this.of("checkpoint");
    const byStepsAlone = this.seal.counts.has("join");
    const out = [];
    for (const { rows } of this.lives) {
      const t = newTally();
      for (let i = 0; i < rows.n; i++) {
        if ((i & 8191) === 8191) await this.breathe("checking: claim", i / rows.n);
        const kind = rows.kind[i];
        const detail = rows.detail[i];
        const step = rows.step[i];
        t.kinds[kind]++;
        if (kind === ROLE) t.roles.add(detail);
        if (!isUse(kind)) continue;
        const isGone = isUndone(rows.entry[i], step);
        t.uses++;
        t.first = step < t.first ? step : t.first;
        t.last = step > t.last ? step : t.last;
        t.undone += isGone;
        if (state && !isGone && step <= state.step && (byStepsAlone || rows.entry[i] < state.number)) t.saved++;
        if (kind === USED) t.ways[detail]++;
        else
          this.tallyNeighbour(
            t,
            detail,
            rows === this.rows && this.isEvident ? this.shown.get(rows.entry[i]) : undefined,
          );
      }
      out.push(t);
    }
    return out;
  }

  tallyNeighbour(t, hop, e) {
    t.least = Math.min(t.least, hop);
    t.greatest = Math.max(t.greatest, hop);
    if (e?.graph !== "whole") return;
    t.whole++;
    t.far += BigInt(hop) === e.hops;
  }

  /** Whether a use of an entry and step was undone: a later `resume` entry went on from a step before it. */
  undoing() {
    const resumes = this.of("resume");
    const least = resumes.map((e) => e.step);
    for (let i = least.length - 2; i >= 0; i--) if (least[i + 1] < least[i]) least[i] = least[i + 1];
    return (entry, step) => {
      let low = 0,
        high = resumes.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (resumes[middle].number > entry) high = middle;
        else low = middle + 1;
      }
      return low < resumes.length && least[low] < step;
    };
  }

  timeWords(isOfUses) {
    const { rows } = this;
    const numbers = distinct(rows, (i) => !isOfUses || isUse(rows.kind[i]));
    const times = numbers.map((number) => this.shown.get(number).time);
    const least = (a, b) => (a < b ? a : b);
    const most = (a, b) => (a > b ? a : b);
    const at = (time) => new Date(Number(time / 1_000_000_000n) * 1000).toISOString().slice(0, 19) + "Z";
    const span = `from ${at(times.reduce(least))} to ${at(times.reduce(most))}`;
    if (!isOfUses) return [`By the clock of the recorder, the entries about it were written ${span}.`];
    const epochs = `Epochs of its uses: ${this.epochs.length}, from ${this.epochs[0]} to ${this.epochs.at(-1)}.`;
    return [`By the clock of the recorder, the entries of its uses were written ${span}.`, epochs];
  }

  stateWords(mine) {
    const [state] = this.of("checkpoint");
    if (!state) return [];
    const isGone = this.of("resume").some((e) => e.number > state.number && e.step < state.step);
    need(!isGone, `the model state of entry ${state.number} was undone: the run was resumed from before its step`);
    const digest = state.digest ? ` with SHA-256 ${toHex(state.digest)}` : "";
    const ranks = this.seal.counts.has("join") ? ", by the steps that each rank counts" : "";
    return [`The model state of step ${state.step}${digest} was saved after ${mine.saved} of its uses${ranks}.`];
  }
}

function newTally() {
  return {
    kinds: new Array(ROW_NAMES.length).fill(0),
    ways: new Array(6).fill(0),
    roles: new Set(),
    uses: 0,
    undone: 0,
    saved: 0,
    first: NONE,
    last: 0n,
    least: 65_536,
    greatest: 0,
    whole: 0,
    far: 0,
  };
}

/** Of two tallies what the sentences say of both together. */
function sumOf(a, b) {
  const both = (x, y) => x.map((n, i) => n + y[i]);
  return {
    ...a,
    kinds: both(a.kinds, b.kinds),
    ways: both(a.ways, b.ways),
    uses: a.uses + b.uses,
    undone: a.undone + b.undone,
    first: a.first < b.first ? a.first : b.first,
    last: a.last > b.last ? a.last : b.last,
  };
}
