// The rows that shown entries give a sample, and where samples stand in their blocks (docs/spec/index.md).

/** By sample (hex) its ordinals by block (hex), from shown entries that register it; `lives`: {id, rows} of each. */
async function ordinalsOf(shown, lives, breathe) {
  const samples = [...shown.values()].filter((e) => e.kind === "samples");
  const found = new Map();
  const sizes = await sizesOf(samples, breathe);
  for (const { id, rows } of lives) {
    const mine = new Map();
    for (const number of distinct(rows, (i) => rows.kind[i] === REGISTERED)) {
      const e = shown.get(number);
      const place = e.kind === "samples" ? placeOf(e.ids, id) : -1;
      need(place >= 0, `entry ${number} does not register ${toHex(id)}, as a row says it does`);
      const size = sizes.get(partsOf(e));
      const block = toHex(e.block);
      need(e.part === 0n || size !== undefined, "no part but the last of a block is shown, so its size is not known");
      const ordinal = e.part * BigInt(size ?? 0) + BigInt(place);
      if (!mine.has(block)) mine.set(block, ordinal);
      need(mine.get(block) === ordinal, `${toHex(id)} has two places in one block`);
    }
    found.set(toHex(id), mine);
    await breathe("checking: places", found.size / lives.length);
  }
  return found;
}

const partsOf = (e) => `${toHex(e.block)} ${e.parts}`;

/** How many ids each part of a block but the last has; the parts shown must agree. */
async function sizesOf(samples, breathe) {
  const sizes = new Map();
  for (const e of samples) {
    const size = e.ids.length / 32;
    need(
      e.parts > 1n || isSame(sha256(e.ids).subarray(0, 16), e.block),
      "a block of one part that is not named by its ids",
    );
    await breathe("checking: blocks", 0);
    if (e.part === e.parts - 1n) continue;
    if (!sizes.has(partsOf(e))) sizes.set(partsOf(e), size);
    need(sizes.get(partsOf(e)) === size, "parts of one block differ in size");
  }
  for (const e of samples)
    need(e.ids.length / 32 <= (sizes.get(partsOf(e)) ?? Infinity), "the last part of a block is longer");
  return sizes;
}

function placeOf(ids, id) {
  let low = 0,
    high = ids.length / 32;
  while (low < high) {
    const middle = (low + high) >> 1;
    const order = compare(idAt(ids, middle), id);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return -1;
}

/** Of a `transform` entry by the parent's ordinal those of its children. */
function childrenByParent(e) {
  const found = new Map();
  e.parents.values.forEach((parent, i) => {
    const key = BigInt(parent);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(e.children.values[i]);
  });
  return found;
}

/** Whether the first life leads to all the others, and to no sample that is not shown; how many entries say so. */
async function followChildren(lives, shown, breathe) {
  const rowsOf = new Map(lives.map(({ id, rows }) => [toHex(id), rows]));
  need(rowsOf.size === lives.length, "the sample is carried as a descendant of its own");
  const ordinals = await ordinalsOf(shown, lives, breathe);
  const who = new Map(); // by block and ordinal
  for (const [member, places] of ordinals) {
    for (const [block, ordinal] of places) {
      need(!who.has(`${block} ${ordinal}`), "two samples have one ordinal");
      who.set(`${block} ${ordinal}`, member);
    }
  }
  const pairs = new Map();
  const reached = new Set([toHex(lives[0].id)]);
  for (const parent of reached) {
    // in the order in which it grows
    await breathe("checking: children", reached.size / rowsOf.size);
    for (const [number, count] of madeInto(rowsOf.get(parent))) {
      const e = shown.get(number);
      need(e.kind === "transform" && "parents" in e, `entry ${number} makes no new samples, and a row says so`);
      if (!pairs.has(number)) pairs.set(number, childrenByParent(e));
      const children = pairs.get(number).get(ordinals.get(parent).get(toHex(e.block))) ?? [];
      need(children.length === count, `entry ${number} makes other samples of ${parent} than its rows say`);
      for (const ordinal of children) {
        const child = who.get(`${toHex(e.child_block)} ${ordinal}`);
        need(child !== undefined, `entry ${number} makes a sample of ${parent} that is not shown`);
        reached.add(child);
      }
    }
  }
  need(reached.size === rowsOf.size, "a sample is carried as a descendant, and no entry says that it was made from it");
  return pairs.size;
}

/** The entries by which a stage made new samples from the sample of these rows, and in how many pairs each. */
function madeInto(rows) {
  const made = new Map();
  for (let i = 0; i < rows.n; i++) {
    if (rows.kind[i] !== TRANSFORMED || rows.detail[i] !== HAS_CHILDREN) continue;
    made.set(rows.entry[i], (made.get(rows.entry[i]) ?? 0) + 1);
  }
  return made;
}

/** The rows (kind, detail, step), ascending, that an entry gives a sample of these ordinals; `epochs` of uses grow. */
function rowsGiven(e, id, ordinals, epochs) {
  const places = (column, block = e.block) => {
    const ordinal = block && column ? ordinals.get(toHex(block)) : undefined;
    const out = [];
    if (ordinal === undefined || ordinal >= 2n ** 32n) return out;
    const wanted = Number(ordinal);
    const { values } = column;
    for (let at = values.indexOf(wanted); at >= 0; at = values.indexOf(wanted, at + 1)) out.push(at);
    return out;
  };
  const many = (found, ...row) => found.map(() => row);
  if (e.kind === "samples") return placeOf(e.ids, id) < 0 ? [] : [[REGISTERED, 0, NONE]];
  if (e.kind === "roles") return many(places(e.ordinals), ROLE, ROLES.indexOf(e.role) + 1, NONE);
  if (e.kind in NAMING) return many(places(e.ordinals), NAMING[e.kind], 0, e.step ?? NONE);
  if (e.kind === "transform") {
    return [
      ...many(places(e.kept), TRANSFORMED, KEPT, NONE),
      ...many(places(e.dropped), TRANSFORMED, DROPPED, NONE),
      ...many(places(e.parents), TRANSFORMED, HAS_CHILDREN, NONE),
      ...many(places(e.children, e.child_block), DERIVED, 0, NONE),
    ];
  }
  const out = [],
    add = (batch, kind, detail) => {
      out.push([kind, detail, e.step.values[batch]]);
      if (isUse(kind)) epochs.add(e.epoch.values[batch]);
    };
  if (e.kind !== "use") return out;
  for (const batch of groupsOf(places(e.ordinals), e.count)) {
    const status = e.status.values[batch];
    if (status === APPLIED) add(batch, USED, e.attribution.values[batch]);
    else add(batch, DELIVERED, status);
  }
  for (const group of groupsOf(places(e.hop_ordinals), e.hop_count)) {
    const hops = Number(e.hops);
    const batch = Math.floor(group / hops);
    if (e.status.values[batch] === APPLIED) add(batch, NEIGHBOUR, (group % hops) + 1);
  }
  return out.sort(
    ([kindA, detailA, stepA], [kindB, detailB, stepB]) =>
      kindA - kindB || detailA - detailB || (stepA < stepB ? -1 : stepA > stepB ? 1 : 0),
  );
}

/** In which group each of ascending places is, given the groups' sizes. */
function groupsOf(places, sizes) {
  let group = -1,
    stop = 0;
  return places.map((place) => {
    while (place >= stop) stop += sizes.values[++group];
    return group;
  });
}
