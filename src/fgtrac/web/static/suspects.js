// Suspects are marked in this browser only, by trace; the marked ones are saved as CSV for relabelling. Nothing is sent.
"use strict";

const marking = document.querySelector(".marking");

if (marking) {
  const name = "fgtrac suspects " + marking.dataset.trace;
  const boxes = [...document.querySelectorAll("input.mark-suspect")];
  const save = marking.querySelector(".save-marked");
  const unmark = marking.querySelector(".unmark");

  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(name) || "[]");
      return new Set(Array.isArray(kept) ? kept.filter((id) => /^[0-9a-f]{64}$/.test(id)) : []);
    } catch {
      return new Set(); // storage is switched off: marks last as long as the page
    }
  };
  let marked = read();

  const show = () => {
    marking.querySelector(".marked-count").textContent = String(marked.size);
    save.hidden = unmark.hidden = marked.size === 0;
    for (const box of boxes) box.checked = marked.has(box.value);
  };
  const keep = () => {
    try {
      localStorage.setItem(name, JSON.stringify([...marked].sort()));
    } catch { /* as in read */ }
    show();
  };

  // RFC 4180: a field with a comma, a quote or a line's end stands in quotes
  const field = (value) => {
    const text = value === undefined || value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const csv = (columns, rows) => [columns, ...rows.map((row) => columns.map((c) => row[c]))]
    .map((line) => line.map(field).join(",") + "\n").join("");

  const download = (text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "marked-suspects.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  for (const box of boxes) {
    box.disabled = false;
    box.addEventListener("change", () => {
      marked = read(); // another tab may have marked some
      if (box.checked) marked.add(box.value); else marked.delete(box.value);
      keep();
    });
  }
  save.addEventListener("click", async () => {
    const words = save.textContent;
    try {
      const rows = new Map([...marked].sort().map((id) => [id, { id }])); // one that is in no list any more has its id alone
      let columns = [];
      for (const list of marking.dataset.rows.trim().split(" ")) {
        const answer = await fetch(list, { credentials: "same-origin" });
        const said = await answer.json();
        columns = said.columns;
        for (const row of said.suspects) if (marked.has(row.id)) rows.set(row.id, row);
      }
      download(csv(columns, [...rows.values()]));
    } catch {
      save.textContent = "Not saved: the explorer does not answer";
      setTimeout(() => { save.textContent = words; }, 3000);
    }
  });
  unmark.addEventListener("click", () => { marked = new Set(); keep(); });
  window.addEventListener("storage", (event) => { if (event.key === name) { marked = read(); show(); } });
  show();
}
