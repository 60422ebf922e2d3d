"""The policies with a list: samples that were opted out by name, and by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import (
    key_commitment,
)
from fgtrac.verify.opt_outs import AtHand
from fgtrac.verify.report import Verdict
from fgtrac.verify.sample_lists import parse_digests
from judged import (
    ALICE,
    BOTH,
    CANNOT_TELL,
    HOLDS,
    REFUTED,
    SECRET,
    TEST,
    TRAIN,
    UNLIKE,
    Data,
    check,
    listed,
    opt_out,
)
from signed import run

# -- opt-outs by name -------------------------------------------------------------------------------------------------

NAMED = opt_out(samples="list.txt")
KEYED = Data("keyed", 4, scheme="keyed")
KEYED_RUN = run(id_scheme="keyed", key_commitment=key_commitment(SECRET))
KEYED_LOG = [*KEYED.registered("train"), KEYED.use(1, 0, 1)]


@pytest.mark.parametrize("line", ["train:2", "key:2", f"id:{TRAIN.ids[2].hex()}", TRAIN.ids[2].hex().upper()])
def test_a_listed_sample_is_found_by_anyone_where_ids_are_public(line: str) -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1), TRAIN.use(2, 2), policies=NAMED, at_hand=listed(line))["opt-out list"]
    assert found.verdict is REFUTED
    assert [b[:2] for b in found.broken] == [(TRAIN.ids[2], 2)]
    unused = check(BOTH, TRAIN.use(1, 0, 1), policies=NAMED, at_hand=listed(line))["opt-out list"]
    assert unused.verdict is HOLDS


def test_a_key_counts_in_every_data_set_or_in_those_that_are_named() -> None:
    log = [*BOTH, TRAIN.use(1, 0), TEST.use(2, 0)]
    assert len(check(log, policies=NAMED, at_hand=listed("key:0"))["opt-out list"].broken) == 2
    some = opt_out(samples="list.txt", datasets=("train",))
    assert [b[0] for b in check(log, policies=some, at_hand=listed("key:0"))["opt-out list"].broken] == [TRAIN.ids[0]]
    with pytest.raises(ValueError, match='has no data set "trian"; it has "train", "test"'):
        check(log, policies=opt_out(samples="list.txt", datasets=("trian",)), at_hand=listed("key:0"))


def test_keyed_names_need_the_key_and_ids_do_not() -> None:
    lines = [f"keyed:{row}" for row in (1, 2, 7)]
    without = check(KEYED_LOG, policies=NAMED, at_hand=listed(*lines), run_entry=KEYED_RUN)["opt-out list"]
    assert without.verdict is CANNOT_TELL
    assert '3 names cannot be looked up in "keyed"' in without.words
    by_id = listed(*lines, f"id:{KEYED.ids[0].hex()}")
    assert check(KEYED_LOG, policies=NAMED, at_hand=by_id, run_entry=KEYED_RUN)["opt-out list"].verdict is REFUTED
    given = listed(*lines, id_key=SECRET)
    found = check(KEYED_LOG, policies=NAMED, at_hand=given, run_entry=KEYED_RUN)["opt-out list"]
    assert [b[0] for b in found.broken] == [KEYED.ids[1]]
    others = listed("keyed:2", "keyed:7", id_key=SECRET)
    assert check(KEYED_LOG, policies=NAMED, at_hand=others, run_entry=KEYED_RUN)["opt-out list"].verdict is HOLDS


def test_names_that_cannot_be_looked_up_do_not_matter_where_nothing_was_used_since() -> None:
    for after, verdict in ((10**6, HOLDS), (1, CANNOT_TELL)):
        policies = opt_out(samples="list.txt", after=after)
        found = check(KEYED_LOG, policies=policies, at_hand=listed("keyed:1"), run_entry=KEYED_RUN)["opt-out list"]
        assert found.verdict is verdict


def test_names_of_a_subject_s_samples_need_a_vault_that_knows_them_all() -> None:
    mine = Data("mine", 3, scheme="subject", subjects=[ALICE] * 3)
    log = [*mine.registered("train"), mine.use(1, 0, 1)]

    def vault(rows: Iterable[int]) -> Callable[[], Iterable[tuple[bytes, str, bytes]]]:
        return lambda: [(mine.ids[row], "mine", encode(row)) for row in rows]

    def answer(line: str, rows: Iterable[int]) -> Verdict:
        lines = line, f"id:{mine.ids[2].hex()}"
        found = check(log, policies=NAMED, at_hand=listed(*lines, names=vault(rows)))["opt-out list"]
        assert ('1 names cannot be looked up in "mine"' in found.words) == (found.verdict is CANNOT_TELL)
        return found.verdict

    assert answer("mine:1", range(3)) is REFUTED
    assert answer("key:2", range(3)) is HOLDS
    assert answer("mine:9", range(3)) is HOLDS  # every sample has a name, and none has this one
    assert answer("mine:1", [0, 2]) is CANNOT_TELL
    assert answer("mine:1", []) is CANNOT_TELL
    assert answer("mine:2", [2]) is HOLDS


def test_an_empty_list_bans_nobody_and_says_that_it_is_empty() -> None:
    for policies, at_hand, what in ((NAMED, listed(), "names"), (CONTENTS, digests(), "contents")):
        found = check(BOTH, TRAIN.use(1, 0), policies=policies, at_hand=at_hand)["opt-out list"]
        assert found.verdict is HOLDS
        assert f"no use of 0 samples by the 0 {what} (the list is empty)" in found.words


NOBODY = ("train:9", 'key:"x"', "id:" + "ab" * 32, "test:key:17")


def test_names_that_no_sample_has_are_counted() -> None:
    found = check(BOTH, TRAIN.use(1, 0), policies=NAMED, at_hand=listed("train:3", *NOBODY))["opt-out list"]
    assert found.verdict is HOLDS
    assert "no use of 1 sample by the 5 names (4 of them no sample of this log has) of opt-out list" in found.words


@pytest.mark.parametrize("line", NOBODY)
def test_a_list_that_names_no_sample_at_all_may_be_misspelt(line: str) -> None:
    found = check(BOTH, TRAIN.use(1, 0), policies=NAMED, at_hand=listed(line))["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert "none of the 1 names is that of a sample in this log; check the spelling" in found.words
    assert check(BOTH, policies=NAMED, at_hand=listed(line))["opt-out list"].verdict is HOLDS  # nothing was used at all


def test_a_key_that_one_data_set_has_is_somebody_s() -> None:
    found = check(BOTH, TRAIN.use(1, 0), policies=NAMED, at_hand=listed("key:3"))["opt-out list"]  # `test` has 3 rows
    assert found.verdict is HOLDS
    assert "no use of 1 sample by the 1 names of opt-out list" in found.words


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_mark_before_the_first_line_is_no_part_of_the_name(size: int) -> None:
    data = b"\xef\xbb\xbftrain:2\ntrain:3\n"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    found = check(BOTH, TRAIN.use(1, 2), policies=NAMED, at_hand=AtHand(read=lambda _: pieces))["opt-out list"]
    assert [b[0] for b in found.broken] == [TRAIN.ids[2]]
    digest = hashlib.sha256(b"x").hexdigest().encode()
    assert [*parse_digests([b"\xef\xbb\xbf" + digest])] == [[], [hashlib.sha256(b"x").digest()]]


def test_a_comment_is_refused_since_it_may_be_a_name() -> None:
    odd = Data("# photos", 4)
    with pytest.raises(FormatError, match=r'line 2, "# photos:3", begins with #, and a list has no comments'):
        check(odd.registered(), odd.use(1, 3), policies=NAMED, at_hand=listed("key:1", "# photos:3"))


def test_a_name_in_a_data_set_that_the_log_does_not_have_may_be_a_misspelling() -> None:
    lines = listed("train:3", "trian:1", 'trian:key:"a"', "photos:2")
    found = check(BOTH, TRAIN.use(1, 0), policies=NAMED, at_hand=lines)["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '3 names are in data sets that this trace does not have, the first is line 2, "trian:1"' in found.words
    assert 'it has "test", "train"' in found.words
    assert check(BOTH, TRAIN.use(1, 3), policies=NAMED, at_hand=lines)["opt-out list"].verdict is REFUTED
    assert check(BOTH, policies=NAMED, at_hand=lines)["opt-out list"].verdict is HOLDS  # nothing was used at all


def test_a_row_is_a_name_only_where_samples_are_named_by_numbers() -> None:
    """`photos:1` of photos that were given other keys bans nobody, and its row 1 may have been used."""
    for keys, used, verdict in (
        ("rows", 0, HOLDS), ("rows", 1, REFUTED), ("numbers", 0, HOLDS), ("numbers", 1, REFUTED),
        ("names", 0, CANNOT_TELL), ("names", 1, REFUTED), (None, 0, CANNOT_TELL),
    ):  # fmt: skip
        photos = Data("photos", 2, keys=keys)
        found = check(photos.registered(), photos.use(1, used), policies=NAMED, at_hand=listed("photos:1"))
        assert found["opt-out list"].verdict is verdict, keys
        words = found["opt-out list"].words
        assert ("by the number that a sample was given as its key" in words) is (keys == "numbers")
        said = '1 names give a row of "photos", the first is line 1, "photos:1", and the log does not say'
        assert (said in words) is (verdict is CANNOT_TELL)
        spelled = check(photos.registered(), photos.use(1, used), policies=NAMED, at_hand=listed("photos:key:1"))
        assert spelled["opt-out list"].verdict is (REFUTED if used else HOLDS)
        spared = check(photos.registered(), TRAIN.registered(), TRAIN.use(1, 0), policies=NAMED,
                       at_hand=listed("photos:1"))  # fmt: skip
        assert spared["opt-out list"].verdict is HOLDS


def test_two_entries_that_disagree_about_keys_say_nothing_of_them() -> None:
    photos, other = Data("photos", 2), Data("photos", 2, keys="names")
    log = [*photos.registered(), other.registered()[0], photos.use(1, 0)]
    assert check(log, policies=NAMED, at_hand=listed("photos:1"))["opt-out list"].verdict is CANNOT_TELL


def test_a_list_has_the_same_grammar_of_names_as_everything_else() -> None:
    """`train:key:2` is the key 2 of `train`, also beside a data set that is called `train:key`."""
    odd = Data("train:key", 4)
    log = [*TRAIN.registered(), *odd.registered(), TRAIN.use(1, 2), odd.use(2, 1)]
    found = check(log, policies=NAMED, at_hand=listed("train:key:2"))["opt-out list"]
    assert [b[0] for b in found.broken] == [TRAIN.ids[2]]
    for line in ("row:a.npy:1", "file:a", "id:7", "train:key:", "train:-1", "train:", 'train:key:{"a":1}'):
        with pytest.raises(FormatError, match=r"line 1, .* names no sample"):
            check(log, policies=NAMED, at_hand=listed(line))


def test_what_was_made_from_a_listed_sample_is_listed() -> None:
    crops = Data("crops", 1, content=None)
    made = [*crops.registered(), TRAIN.made(crops, (1, 0))]
    found = check(BOTH, made, crops.use(1, 0), policies=NAMED, at_hand=listed("train:1"))["opt-out list"]
    assert [b[0] for b in found.broken] == [crops.ids[0]]


def test_a_line_that_is_no_name_is_an_error_that_says_where() -> None:
    with pytest.raises(FormatError, match=r'opt-out list: list\.txt: line 2, "seven", names no sample'):
        check(BOTH, policies=NAMED, at_hand=listed("train:1", "seven"))


# -- opt-outs by content ----------------------------------------------------------------------------------------------


def digests(*sources: bytes, **more: Any) -> AtHand:
    lines = b"".join(hashlib.sha256(source).hexdigest().encode() + b"  name\n" for source in sources)
    return AtHand(digests=lambda _path: parse_digests([lines]), **more)


CONTENTS = opt_out(contents="hashes.txt")


def test_a_listed_content_is_found_in_whatever_sample_holds_it() -> None:
    log = [*BOTH, TRAIN.use(1, 0, 1)]
    found = check(log, policies=CONTENTS, at_hand=digests(b"train 1", b"train 2", b"?"))["opt-out list"]
    assert [b[0] for b in found.broken] == [TRAIN.ids[1]]
    assert "by the 3 contents" in found.words
    assert check(log, policies=CONTENTS, at_hand=digests(b"train 2", b"?"))["opt-out list"].verdict is HOLDS
    assert check(log, policies=CONTENTS, at_hand=digests())["opt-out list"].verdict is HOLDS
    nobody = check(log, policies=CONTENTS, at_hand=digests(b"?"))["opt-out list"]
    assert nobody.verdict is HOLDS
    assert "by the 1 contents (no sample of this log has one of them) of opt-out list" in nobody.words


def test_a_digest_of_its_own_that_cannot_be_compared_with_a_list_leaves_it_open() -> None:
    crops, bare = Data("crops", 1, content="tensor"), Data("bare", 1, content=None)
    made = [*crops.registered(), *bare.registered(), TRAIN.made(crops, (0, 0)), TRAIN.made(bare, (0, 0))]
    for used, verdict in ((crops, CANNOT_TELL), (bare, HOLDS)):
        found = check(BOTH, made, used.use(1, 0), policies=CONTENTS, at_hand=digests(b"?"))["opt-out list"]
        assert found.verdict is verdict


def test_keyed_contents_need_the_key() -> None:
    def answer(at_hand: AtHand) -> Verdict:
        return check(KEYED_LOG, policies=CONTENTS, at_hand=at_hand, run_entry=KEYED_RUN)["opt-out list"].verdict

    assert answer(digests(b"keyed 1")) is CANNOT_TELL
    assert answer(digests(b"keyed 1", id_key=SECRET)) is REFUTED
    assert answer(digests(b"keyed 2", id_key=SECRET)) is HOLDS


@pytest.mark.parametrize("train", UNLIKE.values(), ids=UNLIKE)
def test_files_say_nothing_of_contents_that_are_no_digests_of_files(train: Data) -> None:
    entry, log = run(key_commitment=key_commitment(SECRET)), [*train.registered("train"), *TEST.registered("test")]
    used = check(log, train.use(1, 0), policies=CONTENTS, at_hand=digests(b"?"), run_entry=entry)["opt-out list"]
    assert used.verdict is CANNOT_TELL
    assert "its contents cannot be compared with digests of a file" in used.words
    spared = check(log, TEST.use(1, 0), policies=CONTENTS, at_hand=digests(b"?"), run_entry=entry)["opt-out list"]
    assert spared.verdict is HOLDS
    empty = check(log, train.use(1, 0), policies=CONTENTS, at_hand=digests(), run_entry=entry)["opt-out list"]
    assert empty.verdict is HOLDS


def test_a_list_of_files_says_what_is_used_of_pairs_and_not_what_is_not() -> None:
    """Of each row one file was digested, and it holds another."""
    pairs = Data("pairs", 2, beside=True)
    log = [*pairs.registered(), pairs.use(1, 0)]
    for content, verdict in ((b"pairs 0", REFUTED), (b"other", CANNOT_TELL)):
        found = check(log, policies=opt_out(contents="x"), at_hand=digests(content))["opt-out list"]
        assert found.verdict is verdict, found.words
    assert "of a part of each row" in found.words


def test_the_list_says_what_its_digests_are_of() -> None:
    tensors = Data("tensors", 2, content="tensor float32 3x2")
    log, policies = [*tensors.registered(), tensors.use(1, 0)], opt_out(contents="x", source="tensor")
    assert check(log, policies=policies, at_hand=digests(b"tensors 0"))["opt-out list"].verdict is REFUTED
    assert check(log, policies=policies, at_hand=digests(b"tensors 1"))["opt-out list"].verdict is HOLDS
