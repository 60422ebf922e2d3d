"""What a log can say of the EU AI Act's public summary of training content; all else is the provider's to fill in.

The names, dates and fields are in ai_act.json, with their sources. A summary is a draft and no finding of compliance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fgtrac.api.report import TraceReport
from fgtrac.api.report_figures import Figures, Part
from fgtrac.drawing.html import short
from fgtrac.verify.report import Verdict
from fgtrac.web.use_words import held_words, part_words

OPEN = "to be filled by the provider"
CAUTION = (
    "A draft for the provider, made from a log. It fills in what the log says and marks all else; it does not say "
    "whether the model is a general-purpose one, nor whether any obligation is met."
)
NOBODY = (
    "The vault is not at hand: samples that were given no subject beside others that were count as one subject more, "
    "and as samples of a subject."
)
Sentence = Callable[[Figures], str]


def template() -> dict[str, Any]:
    """The names, dates and fields of ai_act.json."""
    data: dict[str, Any] = json.loads(files("fgtrac.web").joinpath("ai_act.json").read_text(encoding="utf-8"))
    return data


def draft(report: TraceReport) -> dict[str, Any] | None:
    """The summary of a report; None where it has no figures, and where its trace is refuted."""
    if report.figures is None or report.verified.verdict is Verdict.REFUTED:
        return None
    return summarize_content(report.figures, str(report.verified.verdict))


def summarize_content(figures: Figures, verdict: str) -> dict[str, Any]:
    """The summary as plain data: the template's sections, in each field what the log says (`log`) and whether the
    provider has to fill it in (`open`); `totals` and `data_sets` are the log's own counts, `notes` what limits them.
    `verdict` is what verifying the trace found."""
    form = template()
    sections = [_section(section, figures) for section in form["sections"]]
    return {
        "about": {name: form[name] for name in ("regulation", "template", "looked_up", "dates")},
        "caution": CAUTION,
        "log": {
            "trace_id": figures.trace_id, "entries": figures.size, "root": figures.root, "verdict": verdict,
            "entries_not_covered": figures.pending,
        },
        "totals": totals(figures),
        "data_sets": data_sets(figures),
        "notes": [NOBODY] if figures.counts_nobody else [],
        "sections": sections,
    }  # fmt: skip


def totals(figures: Figures) -> dict[str, int]:
    """Sums over all samples, and those over the data sets add up to them."""
    return {
        **_counts(figures.all, figures.training),
        "subjects": figures.subject_count,
        "erasures": len({pseudonym for _, pseudonym, _ in figures.told.erasures}),
    }


def data_sets(figures: Figures) -> list[dict[str, Any]]:
    """A row for each data set, by name."""
    return [
        {
            "name": source.name, "made_by": list(source.made_by), **_counts(source.part, source.training),
            "subjects": source.subjects,
        }
        for source in figures.sources
    ]  # fmt: skip


def _counts(part: Part, training: Part) -> dict[str, int]:
    """Counts of samples and uses. A sample stands in one of the five from `samples_used` to `samples_never_used`."""
    return {
        "samples": part.samples,
        "training_samples": training.samples,
        "samples_used": part.used,
        "samples_only_neighbours": part.as_neighbours,
        "samples_used_through_others": part.through,
        "samples_perhaps_used": part.in_doubt,
        "samples_never_used": part.never,
        "uses": part.uses,
        "superseded_uses": part.superseded,
        "neighbour_uses": part.neighbours,
        "uses_in_doubt": part.perhaps,
        "samples_dropped": part.dropped,
    }


def _section(section: Mapping[str, Any], figures: Figures) -> dict[str, Any]:
    parts = [
        {
            "number": part["number"],
            "title": part["title"],
            "fields": [
                {"id": one["id"], "title": one["title"], "log": _said(one, figures), "open": OPEN}
                for one in part["fields"]
            ],
        }
        for part in section["parts"]
    ]
    return {"number": section["number"], "title": section["title"], "log": _said(section, figures), "parts": parts}


def _said(field: Mapping[str, Any], figures: Figures) -> str:
    """What the log says of a field; nothing of most."""
    return _SENTENCES[field["from"]](figures) if "from" in field else ""


def _last_entry(figures: Figures) -> str:
    return f"The last entry that is counted here is of {date(figures.told.ended)}, by the log's clock."


def _model_states(figures: Figures) -> str:
    kept = [state for state in figures.course.states if state.standing == "kept"]
    named = [f"step {s.step}" + (f" (SHA-256 {s.digest.hex()})" if s.digest else "") for s in kept]
    if not named:
        return f"The log {figures.trace_id} names no kept model state."
    return f"The log {figures.trace_id} names these kept model states: {_list(named)}."


def _modalities(figures: Figures) -> str:
    found = sorted({words for said in figures.course.said.values() if said.what == "attention" for words in said.about})
    if not found:
        return "The log does not say of what modality its samples are."
    return f"The model weighs these modalities, as it was recorded: {_list(found)}."


def _size(figures: Figures) -> str:
    form = template()
    ranges = "; ".join(f"{s['modality'].lower()} in {s['unit']}: {', '.join(s['ranges'])}" for s in form["sizes"])
    said = _told(figures.training, "with the role train")
    said += f" Of all samples, stages dropped {figures.all.dropped:,}."
    return f"{said} The log counts samples. The template asks for a range by modality ({ranges})."


def _latest_registration(figures: Figures) -> str:
    if not figures.training.samples:
        return "No sample has the role train."
    if figures.acquired is None:
        return "The log does not say from what the training samples were made."
    what = "The training samples"
    if figures.is_training_made:
        what = "What the training samples are, or were made from by stages in the log,"
    day = date(figures.acquired)
    return f"{what} were registered by {day}, and so collected before, by the log's clock."


def _record(figures: Figures) -> str:
    return (
        f"Counted from a log of {figures.size:,} entries with the root {figures.root}; samples are the rows of the "
        "data sets as they were registered, and a use is a place in a batch of an applied update. Uses in updates that "
        f"a resume undid later are counted: {figures.all.superseded:,}."
    )


def _data_sets(figures: Figures) -> str:
    n = len(figures.sources)
    return (
        f"The log names {n:,} data set{'s' * (n != 1)}, listed below with their counts. Which of sections 2.1 to 2.6 "
        "each belongs to, the provider says: the log does not know where data came from."
    )


def _subjects(figures: Figures) -> str:
    if not figures.subject_count:
        return "No sample was registered as a person's (subject=). That does not mean that there is none."
    return (
        f"{figures.samples_of_subjects:,} samples belong to {figures.subject_count:,} subjects, under pseudonyms. "
        "Whether they are users, the log does not say." + (f" {NOBODY}" if figures.counts_nobody else "")
    )


def _made_samples(figures: Figures) -> str:
    made = [source for source in figures.sources if source.made_by]
    if not made:
        return "No stage in the log made samples from others. It does not say how the data itself came about."
    named = [f"{s.name} ({s.part.samples:,} samples, by {', '.join(s.made_by)})" for s in made]
    return f"Stages made samples from others: {_list(named)}. Whether an AI model did so, the log does not say."


def _opt_outs(figures: Figures) -> str:
    erased = {pseudonym for _, pseudonym, _ in figures.told.erasures}
    return (
        f"{held_words('excluded', figures.held.get('excluded'))} {len(erased):,} subjects were erased. "
        "fgtrac check also compares contents and tells whether the record is whole, and with --policy FILE it holds a "
        "list of opt-outs against the log; this summary has done nothing of that."
    )


def _removals(figures: Figures) -> str:
    dropped = [f"{s.name} ({s.operation}): {s.dropped:,}" for s in figures.course.stages.values() if s.dropped]
    if not dropped:
        return "No stage in the log dropped a sample."
    return f"Stages dropped samples: {_list(dropped)}. For what reason, beyond the stage's name, the log does not say."


def _processing(figures: Figures) -> str:
    stages = [f"{s.name} ({s.operation} on {s.dataset})" for s in figures.course.stages.values()]
    return f"Stages in the log: {_list(stages)}." if stages else "The log names no preprocessing stage."


_SENTENCES: dict[str, Sentence] = {
    "last_entry": _last_entry, "model_states": _model_states, "modalities": _modalities, "size": _size,
    "latest_registration": _latest_registration, "record": _record, "data_sets": _data_sets, "subjects": _subjects,
    "made_samples": _made_samples, "opt_outs": _opt_outs, "removals": _removals, "processing": _processing,
}  # fmt: skip


def date(nanoseconds: int) -> str:
    """A day in UTC; a time that no calendar has in its own words."""
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns after 1970"


def _told(part: Part, which: str) -> str:
    return f"{part.samples:,} samples {which}; {part_words(part)}; of these, stages dropped {part.dropped:,}."


def _list(words: list[str], most: int = 12) -> str:
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return "; ".join(short(word) for word in words[:most]) + more
