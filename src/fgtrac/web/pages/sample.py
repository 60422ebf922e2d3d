"""A sample: its life from source to prediction, what it did to the model, and the proofs that can be taken away."""

from __future__ import annotations

from typing import Any

from fgtrac.api.one_sample import dataset_names, is_registered, one_sample, prove_one
from fgtrac.drawing.html import short
from fgtrac.events.sample_names import parse_id
from fgtrac.web import sample_charts as charts
from fgtrac.web.asked import Answer, Asked, Download, Elsewhere, NotThereError, Page, address
from fgtrac.web.command import command_line
from fgtrac.web.names import written_out
from fgtrac.web.thumbnails import Thumbnails


def show(asked: Asked) -> Answer | Elsewhere:
    """The page of the sample whose id, 64 hex digits, stands in the address; of other names, the way to it."""
    trace = asked.trace
    try:
        sample_id = parse_id(asked.path["id"])
    except ValueError:
        return Elsewhere(address("run", asked.name, "find", q=asked.path["id"]))
    data, events = one_sample(trace, sample_id)
    pictures: dict[str, str] = {"life": charts.life(events, asked.name)}
    pictures["uses"], pictures["uses_table"] = charts.uses(data["uses"]["epochs"])
    if data["contributions"]:
        pictures["contributions"] = charts.contributions(data["contributions"])
        pictures["contributions_table"] = charts.contribution_table(data["contributions"])
    if data["attention"]:
        pictures["attention"], pictures["attention_table"] = charts.attention(data["attention"])
    data["thumbnail"] = None
    if isinstance(asked.given, Thumbnails):
        data["thumbnail"] = asked.given.of(trace, sample_id).as_json()
    standing = asked.site.standing(asked.name)
    data["verdict"] = {"state": standing.state, "words": standing.words}
    command = command_line("history", asked.site.path_of(asked.name), f"id:{sample_id.hex()}", *asked.site.with_key)
    title = f"Sample {short(data['name'] or sample_id.hex()[:16])}"
    return Answer(title, "sample.html", data, command, pictures=pictures)


def proof(asked: Asked) -> Download:
    """The bundle of a claim (by default the strongest that is true) about the sample, by its name where that is known
    and `named=yes`, else by its id alone."""
    sample_id, claim = _id(asked), asked.query.get("claim") or None
    data = prove_one(asked.trace, sample_id, claim, with_name=asked.query.get("named") == "yes")
    return Download(data, "application/json", f"{(claim or 'proof').replace(' ', '-')}-{sample_id.hex()[:16]}.json")


def thumbnail(asked: Asked) -> Download:
    """The picture of the sample, out of the data that `--with` gave."""
    if not isinstance(asked.given, Thumbnails):
        raise NotThereError("a trace holds no data: start fgtrac ui with --with FILE.py:FUNCTION to see pictures")
    found = asked.given.of(asked.trace, _id(asked))
    if found.png is None:
        raise NotThereError(found.words if not found.text else "this sample is shown as text")
    return Download(found.png, "image/png")


def find(asked: Asked) -> Answer | Elsewhere:
    """The way to the sample of any form of name; of a name that nothing has, what can be done."""
    text, trace = asked.query.get("q", ""), asked.trace
    command = ""
    data: dict[str, Any] = {"asked": text[:600], "why": "", "remark": ""}
    if text.strip():
        try:
            name = written_out(text)
            command = command_line("history", asked.site.path_of(asked.name), name, *asked.site.with_key)
            named = trace.find(name)
            if is_registered(trace, named.id):
                return Elsewhere(address("run", asked.name, "sample", named.id.hex()))
            data["why"] = f"no sample {named.words:.200} is registered, as its neighbours in the index show"
            data["remark"] = trace.remark(name)
        except ValueError as reason:
            data["why"] = str(reason)
    data["datasets"] = dataset_names(trace)
    return Answer("Find a sample", "find.html", data, command, status=404 if text.strip() else 200)


def _id(asked: Asked) -> bytes:
    try:
        return parse_id(asked.path["id"])
    except ValueError as reason:
        raise NotThereError(f"{asked.path['id']:.80} is no sample: {reason}") from reason


PAGES = (
    Page("/run/{name}/sample/{id}", show),
    Page("/run/{name}/sample/{id}/proof", proof),
    Page("/run/{name}/sample/{id}/thumbnail.png", thumbnail),
    Page("/run/{name}/find", find),
)
