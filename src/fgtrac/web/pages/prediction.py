"""A prediction: what the model said of a sample, and beside it who taught it that and who did the opposite."""

from __future__ import annotations

from typing import Any

from fgtrac.api.one_prediction import HOW_TO_SCORE, explain_one, one_prediction
from fgtrac.drawing.html import short
from fgtrac.errors import ScoreError
from fgtrac.events.sample_names import parse_id
from fgtrac.score.methods import METHODS
from fgtrac.web import prediction_charts as charts
from fgtrac.web.asked import Answer, Asked, Elsewhere, Page, address
from fgtrac.web.command import command_line
from fgtrac.web.pictures import pictures_of


def show(asked: Asked) -> Answer | Elsewhere:
    """The page of the sample whose id, 64 hex digits, stands in the address; `method` is how it is scored."""
    try:
        sample_id = parse_id(asked.path["id"])
    except ValueError:
        return Elsewhere(address("run", asked.name, "find", q=asked.path["id"]))
    method = asked.query.get("method") or METHODS[0]
    if method not in METHODS:
        raise ValueError(f"method={method:.40} is none of {', '.join(METHODS)}")
    path = asked.site.path_of(asked.name)
    with asked.site.opened(asked.name) as trace:
        data = one_prediction(trace, sample_id)
        state = asked.site.state(asked.name)
    what = f"prediction {method} {sample_id.hex()}"
    finding = asked.site.scoring.of(path, state, what, explain_one(sample_id, method), asked.patience_s)
    data |= {"method": method, "methods": list(METHODS), "explanation": None, "why_unexplained": ""}
    data |= {"is_computing": False, "done": finding.done, "total": finding.total}
    try:
        data["explanation"] = finding.known()
        data["is_computing"] = data["explanation"] is None
    except ScoreError as reason:
        data["why_unexplained"] = f"{reason}; {HOW_TO_SCORE}"
    data["says"] = _says(data)
    found = data["explanation"] or {}
    listed = [one["id"] for side in ("proponents", "opponents", "baseline") for one in found.get(side, ())]
    data["thumbnails"] = pictures_of(asked, [data["id"], *listed])
    command = command_line("score", path, "--toward", f"id:{sample_id.hex()}", "--method", method)
    title = f"Prediction of {short(data['name'] or sample_id.hex()[:16])}"
    return Answer(title, "prediction.html", data, command, pictures=_drawn(data))


def _says(data: dict[str, Any]) -> str:
    """The explanation's sentence, with the sample's name in the place of its id."""
    found = data["explanation"]
    called = f"id:{data['id']}"
    return "" if found is None else short(found["sentence"].replace(called, short(data["name"] or called, 80)), 600)


def _drawn(data: dict[str, Any]) -> dict[str, str]:
    pictures: dict[str, str] = {}
    last = data["predictions"][-1] if data["predictions"] else None
    if last is not None and last["outputs"]:
        pictures["outputs"] = charts.outputs(last)
    losses = charts.losses(data["predictions"])
    if losses is not None:
        pictures["losses"] = losses
    if data["explanation"] and (data["explanation"]["proponents"] or data["explanation"]["opponents"]):
        pictures["traces"] = charts.contribution_traces(data["explanation"])
    return pictures


PAGES = (Page("/run/{name}/prediction/{id}", show, needs_trace=False),)
