"""Streams: data sets that are registered block by block, as their samples come."""

import hashlib

import numpy as np
import pytest

import fgtrac


def digests_of(*sources):
    return np.frombuffer(b"".join(hashlib.sha256(s).digest() for s in sources), np.uint8).reshape(-1, 32)


@pytest.fixture(params=["public", "keyed"])
def run(request, tmp_path, monkeypatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    with fgtrac.start_run(tmp_path / "a", ids=request.param) as run:
        yield run


def test_blocks_of_one_name_are_one_data_set(run, tmp_path):
    with run:
        first = run._registry.add_block("web", ["a", "b"])
        second = run._registry.add_block("web", ["c", 4, ("d", 5)])
        run._registry.roles.record(first.whole(), "train")
        run._registry.roles.record(second.whole(), "train")
    trace = fgtrac.open(tmp_path / "a.trace")
    assert set(trace.sample_counts().names) == {
        'web:key:"a"', 'web:key:"b"', 'web:key:"c"', "web:4", 'web:key:["d", 5]',
    }  # fmt: skip
    assert "registered" in trace.history('web:key:["d", 5]').text()
    assert trace.verify().verdict == "holds"


def test_a_sample_that_comes_again_in_another_block_is_the_same_sample(run, tmp_path):
    with run:
        one = run._registry.add_block("web", ["a", "b"])
        two = run._registry.add_block("web", ["b", "c"])
        assert one.ids[1].tobytes() == two.ids[0].tobytes()
    trace = fgtrac.open(tmp_path / "a.trace")
    assert len(trace.sample_counts()) == 3
    assert trace.verify().verdict == "holds"


def test_a_block_that_is_there_already_is_not_written_again(run):
    one = run._registry.add_block("web", ["a", "b"])
    entries = run._recorder.entries
    two = run._registry.add_block("web", ["b", "a"])
    assert run._recorder.entries == entries
    assert (two.block, two.ordinals.tolist()) == (one.block, one.ordinals.tolist()[::-1])


def test_samples_without_keys_are_named_by_their_contents(run, tmp_path):
    with run:
        root = run._registry.add_block("web", digests=digests_of(b"seven", b"eight"))
        run._registry.roles.record(root.whole(), "train")
        again = run._registry.add_block("copies", ["x"], digests=digests_of(b"seven"))
        run._registry.roles.record(again.whole(), "test")
    trace = fgtrac.open(tmp_path / "a.trace")
    assert f'web:key:{{"hex": "{hashlib.sha256(b"seven").hexdigest()}"}}' in trace.sample_counts().names
    assert root.contents[0].tobytes() == again.contents[0].tobytes() != root.contents[1].tobytes()
    assert trace.verify().verdict == "holds"


def test_what_is_no_block_is_refused(run):
    add = run._registry.add_block
    run.register(range(3), name="rows", content=False)
    with pytest.raises(ValueError, match="a data set named 'rows' is registered already"):
        add("rows", ["a"])
    with pytest.raises(ValueError, match="rows 0 and 2 both have the key 'a'"):
        add("web", ["a", "b", "a"])
    with pytest.raises(ValueError, match="2 keys and 1 digests"):
        add("web", ["a", "b"], digests=digests_of(b"seven"))
    with pytest.raises(ValueError, match="neither keys nor digests"):
        add("web")
    with pytest.raises(TypeError, match=r"1.5 of type float is no key"):
        add("web", [1.5])
    add("web", ["a"])
    with pytest.raises(ValueError, match="has blocks with digests of its samples, and others without"):
        add("web", ["b"], digests=digests_of(b"seven"))
