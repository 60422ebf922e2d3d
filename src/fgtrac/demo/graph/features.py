"""What the network sees of an icon: a small drawing, the words of its tags, and the icons whose tags are like them.

The names of the categories are left out of every tag of every icon: leaving out only an icon's own would take a look
at its label. Sums run over sorted tags, so that no seed of a hash changes a bit.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = 24
NEIGHBOURS = 6  # that send messages to a node
COMMON = 60  # a tag of more icons than that connects none: it would make a clique of a whole theme


def render(png: bytes) -> NDArray[np.float32]:
    """(24, 24) in 0 to 1: the mean coverage of each pixel. The drawing is the file's alpha channel."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.getchannel("A").resize((PIXELS, PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def forms_of(categories: Iterable[str]) -> frozenset[str]:
    """The words of the categories' names, of three letters at least, and each name in one word ("ecommerce"), in
    singular and plural."""
    names = [re.findall("[a-z]+", name.lower()) for name in categories]
    words = {word for name in names for word in (*name, "".join(name)) if len(word) >= 3}
    singular = {re.sub("ies$", "y", word) if word.endswith("ies") else word.removesuffix("s") for word in words}
    plural = {re.sub("y$", "ies", word) if word.endswith("y") else word + "s" for word in singular}
    return frozenset(words | singular | plural)


def without(tags: Sequence[str], forbidden: frozenset[str]) -> tuple[str, ...]:
    """The tags without the forbidden words, sorted, each once; what is empty then is left out."""
    cleaned = (" ".join(w for w in re.findall("[a-z0-9]+", tag) if w not in forbidden) for tag in tags)
    return tuple(sorted({tag for tag in cleaned if tag}))


def words_of(tags: Sequence[str]) -> tuple[str, ...]:
    """The words of some tags, sorted, each once."""
    return tuple(sorted({word for tag in tags for word in tag.split()}))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Vocabulary:
    """The words that the network knows, and the weight of each: (m,) float64, log(icons / icons with the word)."""

    words: tuple[str, ...]
    weights: NDArray[np.float64]

    def vector(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(m,) float32 of length 1 (or 0 where no word is known): the weights of these words."""
        place = {word: at for at, word in enumerate(self.words)}
        here = [place[word] for word in words if word in place]
        vector = np.zeros(len(self.words))
        vector[here] = self.weights[here]
        length = np.sqrt((vector**2).sum())
        return (vector / length if length else vector).astype(np.float32)


def fit_vocabulary(texts: Sequence[Sequence[str]], least: int) -> Vocabulary:
    """The words that stand in at least `least` of the texts. Give it the training nodes' words, and no others."""
    counts = Counter(word for words in texts for word in set(words))
    known = tuple(sorted(word for word, count in counts.items() if count >= least))
    return Vocabulary(known, np.log(len(texts) / np.array([counts[word] for word in known], dtype=np.float64)))


def connect(tags: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """(2, edges): from each node's nearest to it, in order of the target. Near are nodes that share tags, the rarer
    the nearer: each shared tag of n icons counts 1 / n. No label is looked at."""
    holders: dict[str, list[int]] = defaultdict(list)
    for node, mine in enumerate(tags):
        for tag in mine:
            holders[tag].append(node)
    sources, targets = [], []
    for node, mine in enumerate(tags):
        shared = [holders[tag] for tag in sorted(mine) if 2 <= len(holders[tag]) <= COMMON]
        if not shared:
            continue
        others, which = np.unique(np.concatenate(shared), return_inverse=True)
        nearness = np.bincount(which, np.concatenate([np.full(len(nodes), 1 / len(nodes)) for nodes in shared]))
        nearness[others == node] = -1
        best = np.argsort(-nearness, kind="stable")[: min(NEIGHBOURS, len(others) - 1)]
        sources.append(np.sort(others[best]))
        targets.append(np.full(len(best), node))
    return np.stack([np.concatenate(sources), np.concatenate(targets)])
