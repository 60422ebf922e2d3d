"""A policy file is understood as written, or refused in one line that names the line or the field and the remedy."""

from __future__ import annotations

import re
import tomllib
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.sample_names import parse_sample_name
from fgtrac.verify.policy_file import BUILT_IN, MAX_BYTES, ON_DEMAND, OptOut, Policies, parse_policies
from fgtrac.verify.sample_lists import parse_digests, parse_samples

ROOT = Path(__file__).parents[2]
HEAD = 'format = "fgtrac-policies/v1"\n'
OPT_OUT = '[[opt-out]]\nname = "a"\n'
HEX = "ab" * 32


def test_a_file_of_nothing_but_its_format_asks_for_what_is_built_in() -> None:
    assert parse_policies(HEAD.encode()) == Policies()
    assert Policies().names() == BUILT_IN


def test_every_field_is_understood_as_written() -> None:
    text = HEAD + (
        '[held-out]\nroles = ["test"]\n[every-training-sample-used]\non = false\n'
        '[[opt-out]]\nname = "March"\nsamples = "march.txt"\ndatasets = ["photos"]\nafter = 1970-01-02T01:00:00+01:00\n'
        '[[opt-out]]\nname = "copies"\ncontents = "copies"\nsource = "tensor"\n'
        '[[opt-out]]\nname = "people"\nsubjects = ["p-17"]\n'
    )
    assert parse_policies(text.encode()) == Policies(
        ("held-out", "held-out-contents", "erased-subjects"),
        ("test",),
        (
            OptOut("March", samples="march.txt", datasets=("photos",), after=86_400 * 10**9),
            OptOut("copies", contents="copies", source="tensor"),
            OptOut("people", subjects=("p-17",)),
        ),
    )


def test_features_of_held_out_nodes_are_asked_about_only_by_a_section_of_the_file() -> None:
    for section, is_on in (("", True), ("on = true", True), ("on = false", False)):
        found = parse_policies(f"{HEAD}[held-out-features]\n{section}".encode())
        assert found.built_in == (*BUILT_IN, *("held-out-features" for _ in range(is_on)))
    with pytest.raises(FormatError, match=r"\[held-out-features\] has no field \"roles\"; its fields are on"):
        parse_policies(f'{HEAD}[held-out-features]\nroles = ["test"]'.encode())


def test_the_documented_files_are_policies() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/policies.md").read_text(), re.DOTALL)
    found = parse_policies(block.encode())
    assert [opt_out.name for opt_out in found.opt_outs] == ["requests of March", "withdrawn pictures", "patient 17"]
    assert found.built_in == ("held-out", "held-out-contents", "erased-subjects", "held-out-features")
    (listed,) = parse_policies((ROOT / "examples/policy.toml").read_bytes()).opt_outs
    assert listed.samples is not None
    assert sum(map(len, parse_samples([(ROOT / "examples" / listed.samples).read_bytes()]))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'the first line is format = "fgtrac-policies/v1"'),
        ('format = "fgtrac-policies/v2"', 'format is "fgtrac-policies/v2"'),
        (HEAD + "[held-out", "at the end of a table declaration (at end of document)"),
        (HEAD + "held-out = yes", "no TOML: Invalid value (at line 2, column 12)"),
        (HEAD + "[heldout]", 'no field "heldout"; its fields are format, held-out'),
        (HEAD + "held-out = false", "[held-out] is false; it is a table"),
        (HEAD + "[held-out]\non = 0", "[held-out] on = 0; write true or false"),
        (HEAD + "[held-out]\noff = true", '[held-out] has no field "off"; its fields are on, roles'),
        (HEAD + "[held-out]\nroles = []", "name at least one of validation, test, excluded"),
        (HEAD + '[held-out]\nroles = ["tset"]', '[held-out] roles = ["tset"]; name at least one of'),
        (HEAD + '[held-out]\nroles = ["train"]', "name at least one of validation, test, excluded"),
        (HEAD + "[held-out]\nroles = [[1]]", "roles = [a list]; name at least one"),
        (HEAD + '[held-out-contents]\nroles = ["test"]', '[held-out-contents] has no field "roles"'),
        (HEAD + "opt-out = 1", "write each as [[opt-out]]"),
        (HEAD + "opt-out = [1]", "opt-out 1 is 1; it is a table"),
        (HEAD + "[opt-out]", "write each as [[opt-out]]"),
        (HEAD + '[[opt-out]]\nsamples = "x"', "opt-out 1 has no name"),
        (HEAD + '[[opt-out]]\nname = " "\nsamples = "x"', "name"),
        (HEAD + OPT_OUT, "opt-out 1 (a) has none of samples, contents and subjects; give exactly one"),
        (HEAD + OPT_OUT + 'samples = "x"\ncontents = "y"', "has samples and contents of samples"),
        (HEAD + OPT_OUT + 'samples = "x"\nafter = "2026-03-01"', 'after = "2026-03-01"; it is a date and time'),
        (HEAD + OPT_OUT + 'samples = "x"\nafter = 2026-03-01', "with its offset, like 2026-03-01T00:00:00Z"),
        (HEAD + OPT_OUT + 'samples = "x"\nafter = 2026-03-01T00:00:00', "with its offset"),
        (HEAD + OPT_OUT + 'samples = "x"\nafter = 2026-13-01T00:00:00Z', "no TOML"),
        (HEAD + OPT_OUT + 'samples = "x"\nafer = 1', 'no field "afer"; its fields are name, samples'),
        (HEAD + OPT_OUT + 'samples = ""', "samples = "),
        (HEAD + OPT_OUT + "samples = [1]", "the path of a file that names a sample on each line"),
        (HEAD + OPT_OUT + "subjects = []", "a list of subjects"),
        (HEAD + OPT_OUT + 'subjects = ["p"]\ndatasets = ["d"]', "datasets belongs to samples, and it has subjects"),
        (HEAD + OPT_OUT + 'samples = "x"\nsource = "file"', "source belongs to contents"),
        (HEAD + OPT_OUT + 'contents = "x"\nsource = "pixels"', "one of file, source, table, tensor"),
        (HEAD + (OPT_OUT + 'samples = "x"\n') * 2, 'two opt-outs are named "a"'),
        (HEAD + OPT_OUT * 101, "at most 100"),
        (HEAD + "x = " + "[" * 900 + "]" * 90, "nested too deep"),
        (HEAD + "x = [\n" * 2_001, "more than 2,000 brackets"),
        (HEAD + "x." * 501 + "y = 1", "line 2 has 1,007 bytes; the most is 1,000"),
        (HEAD + "x = 1\nx = 2", "no TOML"),
        (HEAD + "#" * 900 + "\n" + ("#" * 900 + "\n") * 80, "more than 65,536 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_remedy(text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_policies(text.encode())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_text_is_named() -> None:
    with pytest.raises(FormatError, match="line 3 is no UTF-8"):
        parse_policies(HEAD.encode() + b"# fine\n# \xff\n")


def test_a_time_no_entry_can_have_is_brought_into_the_range_of_those() -> None:
    for year, expected in (("0001", 0), ("9999", 2**64 - 1)):
        text = HEAD + OPT_OUT + f'samples = "x"\nafter = {year}-01-01T00:00:00Z'
        assert parse_policies(text.encode()).opt_outs[0].after == expected


def test_what_is_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomllib, "loads", lambda _text: pytest.fail("decoded"))
    for data in (b" " * (MAX_BYTES + 1), b"a." * 600 + b"b = 1", b"[\n" * 3_000):
        with pytest.raises(FormatError):
            parse_policies(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_policies_or_a_format_error(data: bytes) -> None:
    for tried in (data, HEAD.encode() + data):
        with suppress(FormatError):
            assert isinstance(parse_policies(tried), Policies)


values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-5, 5), st.sampled_from(["file", "x", "test", ""]), st.datetimes(), st.dates(),
        st.datetimes(timezones=st.timezones()),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["on", "roles", "name"]), inner),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*BUILT_IN, *ON_DEMAND, "opt-out"]), st.dictionaries(st.sampled_from(["on", "roles"]), values)
    ),
    st.lists(
        st.dictionaries(
            st.sampled_from(["name", "samples", "contents", "subjects", "datasets", "source", "after"]), values
        ),
        max_size=3,
    ),
)
def test_any_values_in_known_fields_are_policies_or_a_format_error(tables: dict[str, Any], opt_outs: list[Any]) -> None:
    said = {"format": "fgtrac-policies/v1", **tables} | ({"opt-out": opt_outs} if opt_outs else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda _text: said)
        with suppress(FormatError):
            assert isinstance(parse_policies(b""), Policies)


# -- lists ------------------------------------------------------------------------------------------------------------


def named(text: str, size: int = 1 << 20) -> tuple[list[bytes], list[tuple[str | None, bytes]]]:
    """The ids and the keys of a list that comes in pieces of some size."""
    data = text.encode()
    found = list(parse_samples(data[i : i + size] for i in range(0, len(data), size)))
    keys = [(dataset, key) for f in found for (dataset, _), some in f.keys.items() for key in some.keys]
    return [i for f in found for i in f.ids], keys


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_list_reads_the_same_however_it_is_cut(size: int) -> None:
    text = f'id:{HEX}\n{HEX.upper()}\r\n\n  photos:17 \nkey:"img.png"\nkey:["s", {{"hex": "00ff"}}]\na:b:3\na:key:4'
    ids, keys = named(text, size)
    assert ids == [bytes.fromhex(HEX)] * 2
    expected = [("photos", 17), (None, "img.png"), (None, ("s", b"\0\xff")), ("a:b", 3), ("a", 4)]
    assert sorted(keys, key=str) == sorted([(d, encode(k)) for d, k in expected], key=str)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["", "id", "key", "file", "row", "role", "a", "é", "_.-", "a b"]),
    st.sampled_from(["", ":", "::", ":key:", f":{HEX}"]),
    st.text("0189:", max_size=21),
)
def test_a_line_of_a_list_means_what_the_grammar_of_names_says(front: str, mark: str, end: str) -> None:
    line = f"{front}{mark}{end}"
    try:
        name = parse_sample_name(line)
    except ValueError:
        if line:
            with pytest.raises(FormatError, match="line 2, "):
                named(f"\n{line}")
        return
    ids, keys = [name.id] if name.id else [], [] if name.id else [(name.dataset, encode(name.key))]
    assert named(f"\n {line}\n") == (ids, keys)


def test_an_empty_list_names_nobody() -> None:
    assert named("") == named("\n\n") == ([], [])
    assert [d for some in parse_digests([]) for d in some] == []


@pytest.mark.parametrize(
    "line",
    ["seven", "id:ab", "key:{", "key:1.5", "key:-1", "key:true", "key:null", "photos:x", "photos:-1", ":", "key:",
     "file:photo.png", "key:" + "[" * 2000, "key:18446744073709551616", 'key:"\\ud800"', "photos:" + "9" * 20],
)  # fmt: skip
def test_a_line_that_names_no_sample_is_named(line: str) -> None:
    with pytest.raises(FormatError, match=r"line 3, .* names no sample"):
        named(f"{HEX}\n\n{line}\n")


def test_a_line_without_end_is_refused_while_it_is_read() -> None:
    def endless() -> Any:
        while True:
            yield b"x" * 1000

    for parse in (parse_samples, parse_digests):
        with pytest.raises(FormatError, match="line 1 has more than 4,096 bytes"):
            list(parse(endless()))


def test_a_list_of_contents_is_what_sha256sum_prints() -> None:
    text = f"{HEX}\n{'CD' * 32}  photo one.png\n{HEX} *binary\n".encode()
    assert [d.hex() for some in parse_digests([text]) for d in some] == [HEX, "cd" * 32, HEX]
    with pytest.raises(FormatError, match='line 2, "abc  x", begins with no SHA-256 of 64 hex digits'):
        list(parse_digests([f"{HEX}\nabc  x".encode()]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40)), st.sampled_from([b"", b"key:", b"id:", b"photos:", HEX.encode()]))
def test_any_bytes_are_a_list_or_a_format_error(pieces: list[bytes], front: bytes) -> None:
    for parse in (parse_samples, parse_digests):
        with suppress(FormatError):
            list(parse([front + piece for piece in pieces]))


@pytest.mark.parametrize("line", [b"\n", b"a:1\n", b'key:""\n', b"[", HEX.encode() + b"\n"])
def test_a_quarter_of_a_megabyte_takes_less_than_16(line: bytes) -> None:
    data = line * ((1 << 18) // len(line))
    tracemalloc.start()
    for parse in (parse_policies, lambda d: list(parse_samples([d])), lambda d: list(parse_digests([d]))):
        try:
            parse(data)
        except FormatError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
