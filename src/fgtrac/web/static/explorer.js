// What the explorer's pages do beside being read: the verdict is asked for again, "/" goes to the search, a command is copied.
"use strict";

const MARKS = { "holds": "✓", "refuted": "✗", "cannot tell": "?" };
const SOON_MS = 700; // while a check is under way
const LATER_MS = 4000; // once it is over: the files may change

function show(standing, said) {
  const { state, checked } = standing.dataset;
  standing.dataset.state = said.state;
  standing.dataset.checked = said.checked ?? checked;
  standing.className = "standing " + said.state.replace(" ", "-");
  standing.querySelector(".mark").textContent = MARKS[said.state] || "…";
  const words = standing.querySelector(".words");
  if (words.textContent !== said.words) words.textContent = said.words;
  if (state !== said.state || checked !== standing.dataset.checked) renew(said); // another check may end in the same word
  return said.state in MARKS;
}

// What a page says of the verdict beside the line at its top is never older than that line.
async function renew(said) {
  const follows = document.querySelector("[data-follows=verdict]");
  if (!follows) return;
  for (const one of follows.querySelectorAll(".holds")) one.classList.replace("holds", "waiting");
  const line = follows.querySelector(".verdict");
  if (line) line.textContent = said.words;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-follows=verdict]");
    if (fresh && page.title === document.title) follows.replaceWith(document.adoptNode(fresh)); else location.reload();
  } catch {
    // the explorer does not answer: the line says so, and it is asked again
  }
}

async function ask(standing) {
  let isOver = true;
  if (!document.hidden) {
    try {
      const answer = await fetch(standing.dataset.ask, { credentials: "same-origin" });
      isOver = show(standing, answer.ok ? await answer.json() : { state: "waiting", words: "not checked: the trace is not there any more" });
    } catch {
      show(standing, { state: "waiting", words: "not known any more: the explorer does not answer" });
    }
  }
  setTimeout(ask, isOver ? LATER_MS : SOON_MS, standing);
}

function copyOnClick(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const words = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: select it instead";
    }
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  const field = document.querySelector("input[type=search]");
  if (event.key === "/" && field && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    field.focus();
    field.select();
  }
});

// On a narrow screen style.css makes a card of each row of a table with many columns: there each cell names its column.
function nameColumns(table) {
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  if (heads.length < 4) return;
  table.classList.add("cards");
  for (const row of table.querySelectorAll("tbody tr")) {
    let at = 0;
    for (const cell of row.cells) {
      if (cell.colSpan === 1 && heads[at]) cell.dataset.label = heads[at];
      at += cell.colSpan;
    }
  }
}

document.querySelectorAll("main table").forEach(nameColumns);
document.querySelectorAll("button.copy").forEach(copyOnClick);
const standing = document.querySelector(".standing[data-ask]");
if (standing) setTimeout(ask, SOON_MS, standing);
const again = document.querySelector("[data-again]");
if (again) setTimeout(() => location.reload(), Number(again.dataset.again));
