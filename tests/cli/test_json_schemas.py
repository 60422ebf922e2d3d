"""Every verb's `--json` is as its schema in docs/schemas has it, and no schema takes what no verb says."""

from __future__ import annotations

import copy
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import erasable
import fgtrac
from json_schemas import SCHEMAS, check, validator, verbs
from lives import batch, live, live_on_a_graph
from loopback_witness import LoopbackWitness, closed_witness
from recorded import Scored
from traces import make_trace, start_trace

ROOT = SCHEMAS.parents[1]
Paths = dict[str, Path]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Traces of several kinds, by what is in them."""
    folder = tmp_path_factory.mktemp("answers")
    scored = Scored(folder / "scored", "tracin").seal().trace.path
    made = {
        "life": live(folder / "life", vault=True).path,
        "graph": live_on_a_graph(folder / "graph").path,
        "whole": make_trace(folder / "whole", artifact_bytes=64).trace.path,
        "unsealed": make_trace(folder / "unsealed", sealed=False).trace.path,
        "keyed": make_trace(folder / "keyed", scheme="keyed").trace.path,
        "scored": scored,
        "losses": losses(folder / "losses"),
        "resumed": resumed(folder / "resumed"),
        "damaged": folder / "damaged.trace",
    }
    shutil.copytree(made["whole"], made["damaged"])
    next((made["damaged"] / "tile" / "entries").rglob("19")).write_bytes(b"none")
    (folder / "people").mkdir()
    made["people"] = erasable.record(folder / "people")
    shutil.copytree(folder / "people", folder / "erased")
    fgtrac.erase(folder / "erased" / "run.trace", subject="bob", key=folder / "erased" / "key.pem")
    made["erased"] = folder / "erased" / "run.trace"
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    made["key"] = folder / "key.pem"
    made["key"].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made["key"].chmod(0o600)
    return made | {"folder": folder}


def losses(folder: Path) -> Path:
    """Batches with losses, one of which jumps."""
    made, writing = start_trace(folder)
    for step in range(1, 41):
        rows = [step % 20, (step + 7) % 20]
        batch(writing, step, rows, step, [9.0 if step == 30 else 1.0 + step % 3 / 10, 1.0])
    writing.end()
    made.seal()
    return made.trace.path


def resumed(folder: Path) -> Path:
    """A run that went back to its first step."""
    made, writing = start_trace(folder)
    for rows in ([0, 1], [2, 3], [4, 5]):
        writing.use(rows)
    writing.recorder.record("resume", {"writers": [], "step": 1})
    writing.step = 1
    writing.use([2, 3])
    writing.end()
    made.seal()
    return made.trace.path


Call = tuple[int, list[str]]
CALLS: dict[str, Callable[[Paths, Path], list[Call]]] = {  # of each verb exit codes and arguments
    "runs": lambda p, out: [(0, [str(p["folder"])]), (0, [str(p["life"])]), (0, [str(out)])],
    "show": lambda p, out: [
        *((0, [str(p[name])]) for name in ("life", "graph", "whole", "unsealed", "keyed", "scored", "people")),
        (0, [str(p["resumed"]), "--resumes"]),
        (0, [str(p["whole"]), "--resumes"]),
    ],
    "diff": lambda p, out: [
        (0, [str(p["life"]), str(p["whole"])]),
        (0, [str(p["scored"]), str(p["scored"])]),
        (0, [str(p["people"]), str(p["keyed"])]),
    ],
    "doctor": lambda p, out: [
        (0, []),
        (1, [str(p["unsealed"])]),
        (1, [str(p["damaged"])]),
        (3, [str(p["whole"]), "--verify"]),
    ],
    "completion": lambda p, out: [(0, ["bash"])],
    "history": lambda p, out: [
        (0, [str(p["life"]), "digits:0"]),
        (0, [str(p["graph"]), "digits:6"]),
        (0, [str(p["graph"]), "digits:0", "--no-details"]),
        (0, [str(p["scored"]), "digits:0"]),
        (0, [str(p["people"]), "people:key:" + json.dumps(erasable.KEYS[0])]),
        (0, [str(p["people"]), "--subject", erasable.ANN]),
        (3, [str(p["erased"]), "--subject", "bob"]),
    ],
    "prove": lambda p, out: [
        (0, [str(p["life"]), "digits:0", "-o", str(out / "used.json")]),
        (0, [str(p["life"]), "digits:99", "-o", str(out / "absent.json")]),
    ],
    "verify": lambda p, out: [
        (0, [str(p["whole"]), "--key", str(p["key"])]),
        (1, [str(p["damaged"]), "--key", str(p["key"])]),
        (3, [str(p["life"])]),
        (3, [str(bundle(p, out))]),
    ],
    "check": lambda p, out: [
        (3, [str(p["whole"])]),
        (1, [str(p["life"]), "--key", str(p["key"]), "--policy", str(opting_out(p, out))]),
    ],
    "report": lambda p, out: [
        (0, [str(p["whole"]), "-o", str(out / "whole.html"), "--key", str(p["key"])]),
        (3, [str(p["people"]), "-o", str(out / "people.html")]),
    ],
    "seal": lambda p, out: [(0, [str(copy_of(p["unsealed"], out))])],
    "erase": lambda p, out: [(0, [str(copy_of(p["people"], out)), "--subject", "bob", "--yes"])],
    "score": lambda p, out: [
        (0, [str(p["scored"])]),
        (0, [str(p["scored"]), "--by", "source", "--toward", "digits:45", "--also", str(p["scored"])]),
        (0, [str(p["scored"]), "-o", str(out / "scores")]),
        (0, [str(copy_of(p["scored"], out)), "--record", "--method", "tracin-cos"]),
    ],
    "suspects": lambda p, out: [(0, [str(p["scored"]), "--top", "3", "-o", str(out / "suspects.csv")])],
    "duplicates": lambda p, out: [(0, [str(p["scored"]), "--top", "3"])],
    "spikes": lambda p, out: [(0, [str(p["losses"])]), (3, [str(p["whole"])])],
    "sql": lambda p, out: [
        (0, [str(p["life"]), "SELECT * FROM samples"]),
        (0, [str(p["life"]), "SELECT 1 AS one, NULL AS none, 'x' AS text, [1, 2] AS list"]),
    ],
    "export proof": lambda p, out: [(0, [str(p["whole"]), "0", "1", "-o", str(out / "proofs")])],
    "export parquet": lambda p, out: [(0, [str(p["life"]), "-o", str(out / "parquet")])],
    "export csv": lambda p, out: [(0, [str(p["life"]), "-o", str(out / "csv")])],
    "export html": lambda p, out: [
        (0, [str(bundle(p, out)), "-o", str(out / "page.html")]),
        (0, ["--empty", "-o", str(out / "empty.html")]),
        (0, ["--verifier-digest"]),
    ],
    "export in-toto": lambda p, out: [
        (0, [str(p["people"]), "-o", str(out / "said.json"), "--key", str(p["people"].with_name("key.pem"))])
    ],
    "export prov": lambda p, out: [(0, [str(p["life"]), "-o", str(out / "prov.json")])],
    "key new": lambda p, out: [(0, [str(out / "new.pem")])],
    "key show": lambda p, out: [(0, [])],
    "key rotate": lambda p, out: [(0, [str(copy_of(p["whole"], out))])],
}
TRIED = 40  # leaves of an answer that are exchanged
ELSEWHERE = {"anchor", "serve", "ui", "key revoke", "demo", "push"}  # below, demo in tests/demo, push in tests/cluster
OPEN = {  # what a schema leaves open, by the path in an answer: an entry's own fields, the user's own values
    "diff": r"(settings|versions|datasets|stages)/\d+/[ab]|roles/(counts|named)/\d+/[ab]",
    "history": r"events/\d+/details/.*",
    "sql": r"rows/.*",
    "export in-toto": r"statement/(subject|predicate)/.*",
    "report": r"ai_act/.*|figures/(subjects/top|metrics)/.*",
}
OPTIONAL = {  # fields at the top that an answer may lack
    "history": {"name", "fidelity", "family", "remark"}, "prove": {"remark"}, "export html": {"words"},
    "score": {"out", "recorded", "by", "steps_of_traces", "neighbours_sampled"}, "suspects": {"out"},
    "duplicates": {"equal_contents"},
}  # fmt: skip


def copy_of(trace: Path, out: Path) -> Path:
    """A trace that may be changed, with what lies beside it."""
    folder = out / "copies" / trace.parent.name
    if not folder.exists():
        shutil.copytree(trace.parent, folder)
    return folder / trace.name


def bundle(p: Paths, out: Path) -> Path:
    """A proof about a sample of the trace `life`."""
    (out / "bundle.json").write_bytes(fgtrac.open(p["life"]).prove("digits:0"))
    return out / "bundle.json"


def opting_out(p: Paths, out: Path) -> Path:
    """A policy that is broken: a used sample was opted out."""
    (out / "ids.txt").write_text("digits:0\n")
    (out / "policy.toml").write_text(
        'format = "fgtrac-policies/v1"\n[[opt-out]]\nname = "asked"\nsamples = "ids.txt"\n'
    )
    return out / "policy.toml"


@pytest.fixture
def own(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any) -> Any:
    """`run` with a key of one's own where a verb needs one."""

    def command(verb: str, *arguments: str) -> Any:
        is_theirs = any("/people/" in word for word in arguments)
        key = paths["people"].with_name("key.pem") if is_theirs else paths["key"]
        mine = tmp_path / "mine" / "key.pem"
        if verb.split()[0] in ("seal", "key", "erase", "score", "anchor") and not mine.exists():
            mine.parent.mkdir()
            shutil.copy(key, mine)
            heads = tmp_path / "copies"
            for state in heads.glob("*/heads"):
                shutil.copytree(state, mine.parent / "heads", dirs_exist_ok=True)
        monkeypatch.setenv("FGTRAC_KEY", str(mine))
        monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
        return run(*verb.split(), *arguments, "--json")

    return command


@pytest.mark.parametrize("verb", CALLS)
def test_what_a_verb_says_is_as_its_schema_has_it(verb: str, paths: Paths, own: Any, tmp_path: Path) -> None:
    for code, arguments in CALLS[verb](paths, tmp_path):
        done = own(verb, *arguments)
        assert done.code == code, (arguments, done)
        check(verb, done.json)
        assert_strict(verb, done.json)


def assert_strict(verb: str, value: Any) -> None:
    """The schema takes the answer with no field fewer (at the top), none more, and no value of another kind."""
    takes = validator(verb).is_valid
    if isinstance(value, dict):
        for name in value:
            lesser = {other: value[other] for other in value if other != name}
            assert takes(lesser) == (name in OPTIONAL.get(verb, set())), f"{verb} without {name}"
        assert not takes(value | {"no such field": 1}), verb
    is_open = re.compile(OPEN.get(verb, "(?!)"))
    every = list(leaves(value))
    for path in every[:: 1 + len(every) // TRIED]:
        if not is_open.fullmatch("/".join(map(str, path))):
            other = copy.deepcopy(value)
            place = other
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = {"of": ["another", "kind"]}
            assert not takes(other), f"{verb} takes anything at {path}"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path
    for step, one in inner or ():
        yield from leaves(one, (*path, step))


RUN: dict[str, Any] = {  # lies about one line of `runs`
    "damaged without a reason": {"state": "damaged", "entries": None},
    "a reason without a fault": {"reason": "is damaged"},
    "a loss that is a word": {"last_loss": "banana"},
    "a best loss at no step": {"best_loss": 0.1, "best_step": None},
    "signed by nobody's key": {"signed_by": "own", "key": None},
    "anchored at no size": {"anchored": ["evm"], "anchored_size": None},
}
LIES: dict[str, tuple[str, str, Callable[[Any], Any]]] = {  # a trace, the verb that is asked, and what is changed
    "holds with a refuted check": ("whole", "verify", lambda said: said["findings"][0].update(verdict="refuted")),
    "refuted by nothing": ("whole", "verify", lambda said: said.update(verdict="refuted")),
    "nothing to do with a to do": ("unsealed", "doctor", lambda said: said.update(exit_code=0)),
    "to do with nothing to do": ("whole", "doctor", lambda said: said.update(exit_code=1)),
    "other order of the same batches": (
        "whole", "diff", lambda said: said["batches"].update(same_samples_in_other_order=True)
    ),
    "differing without a first": ("whole", "diff", lambda said: said["batches"].update(differing=1)),
    "a difference that is a word": (
        "whole", "diff",
        lambda said: said["losses"].append({"name": "x", "compared": 1, "largest": "cow", "step": 1, "a": 1, "b": 2}),
    ),
    "uses of samples that are not compared": (
        "whole", "diff",
        lambda said: said.update(
            compared_by=None, samples=None, contents=None, batches=None,
            cannot_tell=dict.fromkeys(["samples", "contents", "used", "batches", "contributions", "suspects"], "why"),
        ),
    ),
    "nothing compared and no reason": ("whole", "diff", lambda said: said.update(suspects=None, cannot_tell={})),
    "a fork of itself": ("whole", "diff", lambda said: said.update(forked=True)),
    **{
        what: ("whole", "runs", lambda said, changed=changed: said["runs"][0].update(changed))  # type: ignore[misc]
        for what, changed in RUN.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_schema_takes_no_answer_that_contradicts_itself(what: str, paths: Paths, own: Any) -> None:
    name, verb, change = LIES[what]
    said = own(verb, *[str(paths[name])] * (2 if verb == "diff" else 1)).json
    check(verb, said)
    change(said)
    assert not validator(verb).is_valid(said)


def test_an_anchor_s_answers_are_as_their_schema_has_them(paths: Paths, own: Any, tmp_path: Path) -> None:
    trace, witness, down = copy_of(paths["whole"], tmp_path), LoopbackWitness(), closed_witness()
    with witness.running():
        named = [word for w in (witness, down) for word in ("--witness", w.url, "--witness-key", w.vkey)]
        done = own("anchor", str(trace), *named)
    assert done.code == 4
    assert [set(one) >= {"receipt"} for one in done.json["anchored"]] == [True, False]
    check("anchor", done.json)
    assert_strict("anchor", done.json)
    forgotten = own("anchor", str(trace), "--forget")
    assert len(forgotten.json["forgotten"]) == 1
    check("anchor", forgotten.json)
    check("runs", own("runs", str(trace)).json)
    check("show", own("show", str(trace)).json)


def test_a_revoked_key_is_as_its_schema_has_it(paths: Paths, own: Any, tmp_path: Path) -> None:
    trace = copy_of(paths["whole"], tmp_path)
    old = own("key rotate", str(trace)).json["traces"][0]["old"]
    done = own("key revoke", old)
    check("key revoke", done.json)
    assert_strict("key revoke", done.json)
    check("key show", own("key show").json)


@pytest.mark.parametrize("verb", ["serve", "ui"])
def test_a_server_says_first_where_it_listens(verb: str, paths: Paths, tmp_path: Path) -> None:
    code = "import sys; from fgtrac.cli.main import main; sys.argv = ['fgtrac', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, verb, str(paths["whole"]), "--json"]
    environment = {"FGTRAC_KEY": str(tmp_path / "none.pem"), "FGTRAC_CACHE": str(tmp_path), "PATH": "/usr/bin"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) in (0, -signal.SIGTERM)  # which may come before it is listened to
    check(verb, said)
    assert_strict(verb, said)


@pytest.mark.parametrize(
    "arguments", [["show", "none.trace"], ["verify", "none.trace"], ["score", "whole"], ["history"]]
)
def test_an_error_is_a_line_on_standard_error_and_no_json(arguments: list[str], paths: Paths, run: Any) -> None:
    verb, *rest = arguments
    done = run(verb, *(str(paths.get(word, word)) for word in rest), "--json")
    assert done.code in (1, 2)
    assert done.out == ""
    assert done.err.startswith("fgtrac: ")


def test_every_verb_has_a_schema_and_is_tried() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {verb.replace(" ", "-") for verb in verbs()} | {"shared"}
    assert CALLS.keys() | ELSEWHERE == set(verbs())


def test_the_page_lists_every_schema() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    assert set(re.findall(r"\(schemas/([a-z-]+)\.json\)", page)) == {path.stem for path in SCHEMAS.glob("*.json")}


def test_schemas_are_well_formed_and_say_whose_they_are() -> None:
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == path.name
        validator(path.stem).check_schema(schema)
        if path.stem != "shared":
            assert schema["title"].startswith(
                f"fgtrac {path.stem.replace('key-', 'key ').replace('export-', 'export ')}"
            )
