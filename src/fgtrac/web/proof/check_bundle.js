// The checks of a bundle (docs/spec/bundle.md, "Checking one"). `checkBundle` is the way in.

/** One bundle under examination: a check returns in words why it holds, or throws Refuted or CannotTell. */
class Examination extends Told {
  constructor(bundle, { key, idKey, about }, breathe) {
    super(bundle, breathe);
    Object.assign(this, { key, idKey, about, findings: [] });
    this.hasMade = this.rows.kind.some((kind, i) => kind === TRANSFORMED && this.rows.detail[i] === HAS_CHILDREN);
  }

  async report() {
    await this.make("seal", []);
    await this.make("entries", ["seal"]);
    await this.make("signature", ["seal", "entries"]);
    await this.make("index", ["seal"]);
    await this.make("identity", ["entries"]);
    if (this.about) await this.make("about", ["entries"]);
    if (this.isEvident) await this.make("evidence", ["entries", "index"]);
    if (this.hasMade || this.bundle.children.length) await this.make("children", ["entries", "index"]);
    if (this.isWhole) await this.make("complete", ["seal", "entries"]);
    if (this.claim === "content absent") await this.make("sources", ["entries"]);
    await this.make("claim", ["entries", "index", "evidence", "children"]);
    const verdicts = this.findings.map((finding) => finding.verdict);
    if (verdicts.includes("refuted")) return "refuted";
    return verdicts.every((verdict) => verdict === "holds") ? "holds" : "cannot tell";
  }

  async make(check, needs) {
    let verdict = "holds",
      words;
    await this.breathe(`checking: ${check}`, 0);
    try {
      const missing = this.findings.find((finding) => needs.includes(finding.check) && finding.verdict !== "holds");
      if (missing) throw new CannotTell(`not checked, since the check of ${missing.check} does not hold`);
      words = await this[`${check}Check`]();
    } catch (error) {
      if (!(error instanceof Refuted) && !(error instanceof CannotTell)) throw error;
      verdict = error instanceof Refuted ? "refuted" : "cannot tell";
      words = error.message;
    }
    this.findings.push({ check, verdict, words });
  }

  sealCheck() {
    const { index, path, root, size, origin } = this.proof;
    need(index === size - 1n, `the seal is entry ${index} of ${size}, not the last: later entries may exist`);
    checkInclusion(root, index, size, this.bundle.seal, path);
    const seal = decodeEntry(this.bundle.seal);
    need(
      seal.kind === "seal" && seal.entries === size - 1n,
      `the last of ${size} entries is no seal over those before it`,
    );
    this.seal = seal;
    return `entry ${index} of ${origin}, the last, commits an index over all entries before it`;
  }

  async entriesCheck() {
    const { root, size } = this.proof;
    const entries = this.bundle.entries;
    const counts = this.seal.counts;
    for (const [i, { number, entry, path }] of entries.entries()) {
      if ((i & 63) === 63) await this.breathe("checking: entries", i / entries.length);
      checkInclusion(root, number, size, entry, path);
      this.shown.set(number, decodeEntry(entry));
    }
    const kinds = this.kindsNeeded();
    const uses = this.rows.kind.some(isUse);
    for (const kind of kinds) {
      const there = BigInt(this.of(kind).length);
      const counted = counts.get(kind) ?? 0n;
      need(there === counted, `${there} ${kind} entries are shown; the seal counts ${counted}`);
      need(kind !== "run" || there === 1n, `${there} run entries are shown; a log has one`);
    }
    const states = this.of("checkpoint");
    need(
      states.length < 2 && states.every((e) => this.claim === "used" && uses && e.kept),
      "a model state that the claim does not need",
    );
    const named = await this.entriesNamed();
    for (const [number, e] of this.shown) {
      const isNeeded =
        kinds.includes(e.kind) ||
        e.kind === "checkpoint" ||
        named.has(number) ||
        (e.kind === "samples" && e.part === 0n);
      need(isNeeded, `entry ${number} (${e.kind}) is shown, and the claim does not need it`);
    }
    const many = `${entries.length} other entries are shown, each of them`;
    const shown = entries.length === 1 ? "1 other entry is shown, which is" : many;
    return `${shown} in the log, and all that the claim needs`;
  }

  kindsNeeded() {
    const kinds = ["key"];
    if (this.claim !== "content present") kinds.push("resume");
    if (this.isWhole) kinds.push("end", "join", "leave");
    if (this.claim === "content absent" || (this.isAbsent && this.bundle.preimage)) {
      kinds.push("dataset");
      if (this.of("dataset").some((e) => e.id_scheme === "keyed")) kinds.push("run");
    }
    return kinds;
  }

  /** Those shown that rows name. What the descendants are found by must be shown. */
  async entriesNamed() {
    const named = new Set();
    const hasDescendants = this.hasMade || this.bundle.children.length > 0;
    for (const { rows } of this.lives) {
      for (let i = 0; i < rows.n; i++) {
        if ((i & 8191) === 8191) await this.breathe("checking: entries", i / rows.n);
        const number = rows.entry[i];
        const isShown = this.shown.has(number);
        if (isShown) named.add(number);
        const leadsOn =
          rows.kind[i] === REGISTERED || (rows.kind[i] === TRANSFORMED && rows.detail[i] === HAS_CHILDREN);
        need(isShown || !hasDescendants || !leadsOn, `the claim needs entry ${number}, and it is not shown`);
      }
    }
    return named;
  }

  async signatureCheck() {
    if (!this.key) throw new CannotTell("no public key was named, and no bundle vouches for its own: name the log's");
    const { origin } = this.proof;
    const named = this.key.publicKey;
    const rotations = this.of("key");
    need((this.key.name ?? origin) === origin, `a head of the log ${origin}; the key that you named is for another`);
    const keys = await this.keysOf(rotations);
    const signed = [];
    for (const key of [...keys, named]) if (await this.hasSigned(key)) signed.push(toHex(key));
    const place = keys.findIndex((key) => isSame(key, named));
    const last = keys.at(-1);
    need(place >= 0, `the log's own entries name other keys than the one that you named, ${toHex(named)}`);
    need(
      signed.includes(toHex(last)),
      `not signed by ${toHex(last)}, the key that you named or the last that it leads to`,
    );
    const passed = rotations.slice(place + rotations.length - (keys.length - 1));
    if (!isSame(named, last) && passed.some((e) => e.revoked)) {
      throw new CannotTell(
        "a key between the one that you named and the one that signed was revoked: ask the log's owner for the new one",
      );
    }
    const through = isSame(named, last)
      ? "the trusted key"
      : "the last key that the trusted one leads to";
    return `signed by ${through}, ${toHex(last)}, for ${origin}`;
  }

  /** The log's keys in turn, once those who put them there have signed; without the first where nobody knows it. */
  async keysOf(rotations) {
    const [run] = this.of("run");
    const named = this.key.publicKey;
    if (!rotations.length) return [run ? run.public_key : named];
    const context = join(toUtf8("fgtrac key rotation v1\n"), fromHex(this.proof.origin.slice(7), "a trace id", 16));
    const message = (old, e) => join(context, old, e.public_key, [e.revoked ? 1 : 0]);
    let old = run?.public_key;
    if (!old && (await isSigned(named, rotations[0].old_signature, message(named, rotations[0])))) old = named;
    const keys = old ? [old] : [];
    const before = new Set(keys.map(toHex));
    for (const e of rotations) {
      await this.breathe("checking: keys", keys.length / rotations.length);
      need(!before.has(toHex(e.public_key)), `entry ${e.number} (key) goes back to a key that signed before`);
      const isByOld = !old || (await isSigned(old, e.old_signature, message(old, e)));
      const isByNew = !old || (await isSigned(e.public_key, e.new_signature, message(old, e)));
      need(isByOld && isByNew, `entry ${e.number} (key) is not signed by the key before it and its own`);
      keys.push((old = e.public_key));
      before.add(toHex(old));
    }
    return keys;
  }

  /** Whether a line of the note is the key's. Every line that is must be right; other people's say nothing here. */
  async hasSigned(key) {
    const { origin, head, lines } = this.proof;
    const keyId = keyIdOf(origin, key);
    const mine = lines.filter((line) => line.name === origin && isSame(line.keyId, keyId));
    for (const line of mine)
      need(await isSigned(key, line.signature, toUtf8(head)), `a signature by ${toHex(key)} does not fit`);
    return mine.length > 0;
  }

  async indexCheck() {
    const { root, leaves } = this.seal;
    const { left, right } = this.bundle;
    const wanted = join([this.isContent ? 2 : 1], this.id);
    if (!this.isAbsent) {
      await this.leafCheck(
        this.id,
        this.isContent ? this.bundle.holders : await this.valueOf(this.rows),
        this.bundle.leaf,
      );
      return `leaf ${this.bundle.leaf.index} of ${leaves} holds this value for ${toHex(this.id)}`;
    }
    for (const side of [left, right]) if (side) checkInclusion(root, side.index, leaves, side.data, side.path);
    need(!left || compare(left.key, wanted) < 0, "the left neighbour does not come before the id");
    need(!right || compare(wanted, right.key) < 0, "the right neighbour does not come after the id");
    need((right ? right.index : leaves) - (left ? left.index : -1n) === 1n, "the leaves shown are not neighbours");
    need(left || right || isSame(root, sha256(new Uint8Array(0))), "an empty index has another root");
    return `${toHex(this.id)} is not among its ${leaves} leaves, as the neighbours show`;
  }

  async leafCheck(id, value, leaf) {
    const data = join([this.isContent ? 2 : 1], id, sha256(value));
    checkInclusion(this.seal.root, leaf.index, this.seal.leaves, data, leaf.path);
  }

  /** A sample's value: 19 bytes a row (index.md). */
  async valueOf(rows) {
    const out = new Uint8Array(19 * rows.n);
    const view = new DataView(out.buffer);
    for (let i = 0, at = 0; i < rows.n; i++, at += 19) {
      if ((i & 8191) === 8191) await this.breathe("checking: index", i / rows.n);
      out[at] = rows.kind[i];
      view.setUint16(at + 1, rows.detail[i], true);
      view.setBigUint64(at + 3, rows.entry[i], true);
      view.setBigUint64(at + 11, rows.step[i], true);
    }
    return out;
  }

  async identityCheck() {
    const { preimage, opening } = this.bundle;
    if (!preimage) {
      need(!opening, "the id is opened without saying what it is the id of");
      return "the claim names the id alone";
    }
    const { words } = (this.name = namedBy(preimage, this.isContent));
    if (this.isAbsent) return this.absentNameCheck(words);
    const found = opening ? await hmac(opening, preimage) : sha256(preimage);
    need(isSame(found, this.id), `${words} has the id ${toHex(found)}, not ${toHex(this.id)}`);
    return `the id is that of ${words}, as ${opening ? "the opening of a keyed id" : "a public id"} shows`;
  }

  async absentNameCheck(words) {
    const { preimage, opening } = this.bundle;
    const scheme = this.scheme();
    need(!opening, "an absent id has no opening");
    if (!scheme)
      throw new CannotTell(`the log's data sets do not say by one scheme how the id of ${words} would be made`);
    if (scheme === "subject")
      throw new CannotTell("each subject has its own id key: only an auditor with the vault can look");
    if (scheme === "keyed" && !this.idKey)
      throw new CannotTell("the ids are keyed: only who holds their key can tell; name it");
    if (scheme === "keyed") {
      const commitment = sha256(join(toUtf8("fgtrac key v1\n"), this.idKey));
      const [run] = this.of("run");
      const isCommitted = run.key_commitment !== undefined && isSame(run.key_commitment, commitment);
      need(isCommitted, "the id key that you named is not the one that the run entry commits to");
    }
    const found = scheme === "public" ? sha256(preimage) : await keyedId(this.idKey, preimage);
    need(isSame(found, this.id), `${words} has the id ${toHex(found)} by its ${scheme} scheme, not ${toHex(this.id)}`);
    return `the id is that of ${words}, by its ${scheme} scheme, if every id is made so`;
  }

  async aboutCheck() {
    const { about } = this;
    const { preimage } = this.bundle;
    if (about.id) {
      need(
        isSame(about.id, this.id),
        `the bundle is about the id ${toHex(this.id)}, and you asked about ${about.words}`,
      );
      return `it is about ${about.words}`;
    }
    need(
      (about.source !== undefined) === this.isContent,
      `the bundle claims "${this.claim}", which cannot be said of ${about.words}`,
    );
    const asked = namedBy(about.preimage, about.source !== undefined).words;
    if (preimage) {
      need(
        isSame(preimage, about.preimage),
        `the bundle is about ${namedBy(preimage, this.isContent).words}, and you asked about ${asked}`,
      );
      const others = this.claim === "content absent" ? this.of("dataset") : [];
      if (others.some((e) => (e.content ?? about.source).split(" ")[0] !== about.source)) {
        throw new CannotTell(
          `a data set's contents are no ${about.source}: that its digest is absent says nothing of that data set`,
        );
      }
      return `${about.words} is ${asked}, as computed here`;
    }
    if (this.isAbsent) throw new CannotTell("an absent id was named alone: ask for a proof that was made by name");
    const ids = [sha256(about.preimage), ...(this.idKey ? [await keyedId(this.idKey, about.preimage)] : [])];
    if (!ids.some((id) => isSame(id, this.id))) {
      throw new CannotTell(
        `an id is named alone, and whether that is ${asked} only a bundle with its preimage, or the id key, shows`,
      );
    }
    return `${about.words} is ${asked}, and has this id`;
  }

  async evidenceCheck() {
    const { rows } = this;
    const ordinals = (await ordinalsOf(this.shown, [this.lives[0]], this.breathe)).get(toHex(this.id));
    if (this.bundle.preimage) {
      const { dataset } = namedBy(this.bundle.preimage, false);
      for (const number of distinct(rows, (i) => rows.kind[i] === REGISTERED)) {
        need(
          this.shown.get(number).dataset === dataset,
          `entry ${number} registers it in another data set than ${asJson(dataset)}`,
        );
      }
    }
    const epochs = new Set();
    for (let start = 0, stop = 0, entries = 0; start < rows.n; start = stop, entries++) {
      if ((entries & 63) === 63) await this.breathe("checking: evidence", start / rows.n);
      const number = rows.entry[start];
      const e = this.shown.get(number);
      const given = rowsGiven(e, this.id, ordinals, epochs);
      while (stop < rows.n && rows.entry[stop] === number) stop++;
      const fits =
        given.length === stop - start &&
        given.every(
          ([kind, detail, step], i) =>
            kind === rows.kind[start + i] && detail === rows.detail[start + i] && step === rows.step[start + i],
        );
      need(fits, `entry ${number} (${e.kind}) gives ${toHex(this.id)} other rows than its value has`);
    }
    this.epochs = [...epochs].sort((a, b) => a - b);
    return `the entries that its rows name give these ${rows.n} rows; that none is missing rests on the index`;
  }

  async childrenCheck() {
    const { children } = this.bundle;
    for (const [i, child] of children.entries()) {
      if ((i & 63) === 63) await this.breathe("checking: children", i / children.length);
      await this.leafCheck(child.id, await this.valueOf(child.rows), child.leaf);
    }
    const entries = await followChildren(this.lives, this.shown, this.breathe);
    return `${children.length} samples were made from it, as ${entries} transform entries say; all are shown`;
  }

  completeCheck() {
    const record = this.record();
    if (record) throw new CannotTell(`this is the record${record}: what it does not hold may have happened`);
    return "the run has ended, and no gap is known in its record";
  }

  sourcesCheck() {
    const sets = this.of("dataset");
    if (!sets.length) throw new CannotTell("the log has no data set, so nothing says what contents are the digests of");
    if (sets.some((e) => !("content" in e)))
      throw new CannotTell("a data set does not say what its contents are, so any may be in it");
    if (sets.some((e) => e.beside === true))
      throw new CannotTell("rows of a data set hold more than what their content digests are of, and this may be that");
    return `each of the ${sets.length} data sets says what its content digests are taken from`;
  }

  async claimCheck() {
    const words = (await this.sentences()).join(" ");
    const other = this.findings.find((f) => f.check !== "about" && f.verdict !== "holds");
    need(words === this.bundle.words, `it says something else. What it shows is: ${words}`);
    if (other) throw new CannotTell(`not checked, since the check of ${other.check} does not hold`);
    if (this.claim === "used" && this.all.uses === this.all.ways[AMONG]) {
      throw new CannotTell(
        "every batch that it was drawn for held another number of samples, and may have left it out",
      );
    }
    return `holds as committed at size ${this.proof.size}: ${words}`;
  }
}

/**
 * What a bundle's bytes prove: {verdict, findings: [{check, verdict, words}], claim, words, id, origin, size, unread,
 * and `parts`: the words that name the sample, with its names apart; none where no sample is named}. `named` has what
 * the reader names: `key` (parseKey), `idKey` (parseIdKey), `about` (parseName, contentOf). Throws Malformed for no
 * bundle. It lets the page go on every few hundredths of a second, and calls `progress` then.
 */
async function checkBundle(bytes, named = {}, progress = () => {}) {
  let since = performance.now();
  const breathe = async (words, part) => {
    if (performance.now() - since < 30) return;
    progress(words, part);
    await new Promise((resume) => {
      const { port1, port2 } = new MessageChannel(); // a timer would be slowed down in a tab that is not looked at
      port1.onmessage = () => (port1.close(), resume());
      port2.postMessage(0);
    });
    since = performance.now();
  };
  const bundle = await readBundle(bytes, breathe);
  const examination = new Examination(bundle, named, breathe);
  const verdict = await examination.report();
  const { origin, size, lines } = bundle.proof;
  const unread = [...new Set(lines.map((line) => line.name).filter((name) => name !== origin))].sort();
  return {
    verdict,
    findings: examination.findings,
    claim: bundle.claim,
    words: bundle.words,
    parts: examination.name?.parts ?? [],
    id: toHex(bundle.id),
    origin,
    size,
    unread,
  };
}
