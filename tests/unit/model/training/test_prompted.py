"""A prompted head learns what its texts mean on one catalogue, and knows it of another that it never saw.

Items are a colour and a maker. Users stay with a colour; the maker, which says nothing, is what texts are mostly alike
by. The frozen encoder is a sum of word vectors, and knows the first words of prompts. Both catalogues have all words,
but no item in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from model.network.prompted import PromptedHead
from model.texts.likeness import VIEWS
from model.texts.prompts import ITEMS, NEXT, RATING, TASKS, WHY, prompt
from model.training.prompted import Catalogue, Question, asked, chosen_share, fit_prompted, reasons, within
from service.artifact.array_types import FloatArray

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 48
COLOURS, MAKERS = [f"c{n}" for n in range(6)], [f"m{n}" for n in range(6)]
ASKING = ["What", "How", "Why"]
KNOWN = [*COLOURS, *MAKERS, *ASKING]
WORDS = dict(zip(KNOWN, np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, len(KNOWN))))[0].T, strict=True))
PAIRS = list(itertools.product(range(6), range(6)))
# An even colour and an odd one: of every maker, the same share is liked.
LIKED = {"c0", "c1"}
HIGH, LOW = 2**0.5, -(2**-0.5)  # ratings of mean 0 and deviation 1


def encode(texts: Sequence[str]) -> FloatArray:
    out = np.zeros((len(texts), DIM), np.float32)
    for row, text in enumerate(texts):
        for word in text.replace(";", " ").replace("?", " ").split():
            out[row] += (1.5 if word in MAKERS else 1.0) * WORDS.get(word, np.zeros(DIM))
    unit: FloatArray = (out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-9)).astype(np.float32)
    return unit


def a_catalogue(parity: int) -> Catalogue:
    texts = [f"{COLOURS[c]} {MAKERS[m]}" for c, m in PAIRS if (c + m) % 2 == parity]
    return Catalogue(texts, encode(texts))


def colour(catalogue: Catalogue, item: int) -> str:
    return catalogue.texts[item].split()[0]


def some_questions(catalogue: Catalogue, n: int, seed: int) -> list[Question]:
    """Histories of one colour, with an item of another in front of half of them."""
    rng, found = np.random.default_rng(seed), []
    for row in range(n):
        wanted = COLOURS[row % 6]
        same = [item for item in range(len(catalogue.texts)) if colour(catalogue, item) == wanted]
        other = [item for item in range(len(catalogue.texts)) if item not in same]
        same = rng.permutation(same)[:3].tolist()
        history = [*([int(rng.choice(other))] if row % 2 else []), *same[:2]]
        found.append(Question(np.array(history), same[2], (), HIGH if wanted in LIKED else LOW))
    return found


def by_colour(catalogue: Catalogue) -> sparse.csr_array:
    names = np.array([colour(catalogue, item) for item in range(len(catalogue.texts))])
    return sparse.csr_array((names[:, None] == names).astype(float))


def fresh() -> PromptedHead:
    return PromptedHead(DIM, len(VIEWS)).eval()


def next_scores(head: PromptedHead, questions: Sequence[Question], catalogue: Catalogue) -> FloatArray:
    items, alike = torch.from_numpy(catalogue.vectors), torch.from_numpy(catalogue.alike)
    with torch.no_grad():
        scores: FloatArray = head.next_scores(asked(NEXT, questions, catalogue, encode), items, alike).numpy()
    return scores


@pytest.fixture(scope="module")
def head() -> PromptedHead:
    known = a_catalogue(0)
    questions = some_questions(known, 240, 1)
    return fit_prompted(questions, known, by_colour(known), encode, epochs=20, share=1.0)


def test_what_comes_next_in_a_strange_catalogue_is_known_better_than_by_popularity_and_text(head: PromptedHead) -> None:
    strange = a_catalogue(1)
    questions = some_questions(strange, 120, 2)
    ours, untrained = next_scores(head, questions, strange), next_scores(fresh(), questions, strange)
    texts = np.stack([strange.alike[0][question.history].mean(axis=0) for question in questions])
    popular = np.tile(np.bincount([q.target for q in questions], minlength=18), (len(questions), 1)).astype(float)

    def found(scores: FloatArray) -> float:
        scores = scores.copy()
        for row, question in enumerate(questions):
            scores[row, question.history] = -np.inf
        return float(np.mean([question.target == scores[row].argmax() for row, question in enumerate(questions)]))

    assert found(ours) > 0.8
    assert found(ours) > found(texts) + 0.3 and found(ours) > found(popular) + 0.3
    assert found(ours) > found(untrained)


def test_before_training_it_is_text_similarity_and_a_text_of_its_own_for_each_history() -> None:
    strange = a_catalogue(1)
    questions = some_questions(strange, 8, 2)
    head = fresh()
    with torch.no_grad():
        head.age.fill_(-30.0)
        head.sharpness.fill_(-9.0)
    for scores, question in zip(next_scores(head, questions, strange), questions, strict=True):
        assert scores == pytest.approx(10 * strange.alike[:, question.history].mean(axis=(0, 1)), abs=0.01)


def test_a_sharp_head_counts_the_best_match_alone_and_an_empty_history_is_like_nothing() -> None:
    strange = a_catalogue(1)
    head = fresh()
    with torch.no_grad():
        head.age.fill_(-30.0)
        head.sharpness.fill_(300.0)
    questions = [Question(np.array([2, 7, 11]), 0), Question(np.zeros(0, np.int64), 0)]
    some, none = next_scores(head, questions, strange)
    assert some == pytest.approx(10 * strange.alike[:, [2, 7, 11]].mean(axis=0).max(axis=0), abs=0.05)
    assert none == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("by_maker", "shares"), [(True, {0.0}), (False, {0.25, 0.5, 1.0})])
def test_what_prompts_say_counts_where_it_holds_for_items_that_were_held_out(
    by_maker: bool, shares: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{COLOURS[c]} {MAKERS[m]}" for c, m in PAIRS]
    known = Catalogue(texts, encode(texts))
    half = np.array([m % 2 for _, m in PAIRS])
    monkeypatch.setattr("model.training.prompted._regions", lambda *_: (half, 2))
    rng, questions = np.random.default_rng(5), []
    for row in range(240):
        # The items of one colour in a half; in the second half, of one maker where that is what counts there.
        of = 1 if by_maker and row % 2 else 0
        one = [item for item, pair in enumerate(PAIRS) if half[item] == row % 2 and pair[of] == row // 2 % 6]
        if one:
            items = rng.permutation(one)[:3]
            questions.append(Question(items[:2], int(items[2])))
    assert chosen_share(questions, known, encode) in shares


def test_questions_within_some_items_know_of_no_others() -> None:
    one = Question(np.array([4, 1, 3]), 5, (1.0, 2.0, 3.0), 0.5)
    (found,) = within([one, replace(one, target=1), replace(one, history=np.array([1]))], np.array([3, 4, 5]), 6)
    assert (found.history.tolist(), found.target, found.ratings, found.rating) == ([1, 0], 2, (1.0, 3.0), 0.5)


def test_the_reason_in_a_strange_catalogue_is_the_item_that_the_log_would_name(head: PromptedHead) -> None:
    strange = a_catalogue(1)
    questions = some_questions(strange, 60, 3)
    target, alike = torch.tensor([question.target for question in questions]), torch.from_numpy(strange.alike)
    with torch.no_grad():
        best = head.reason_scores(asked(WHY, questions, strange, encode), target, alike).argmax(dim=1)
    named = [question.history[int(at) - ITEMS] for question, at in zip(questions, best.tolist(), strict=True)]
    right = [colour(strange, item) == colour(strange, q.target) for item, q in zip(named, questions, strict=True)]
    assert np.mean(right) > 0.9


def test_ratings_after_new_histories_are_those_that_the_training_knew_of_such_items(head: PromptedHead) -> None:
    known = a_catalogue(0)
    questions = some_questions(known, 120, 4)
    target = torch.from_numpy(known.vectors[[question.target for question in questions]])
    prompts = asked(RATING, questions, known, encode)
    with torch.no_grad():
        rated = head.ratings(prompts, target).numpy()
        untrained = fresh().ratings(prompts, target).numpy()
    wanted = np.array([question.rating for question in questions], float)
    assert np.mean((rated - wanted) ** 2) < 0.6, "the mean of all ratings misses by 1"
    assert np.mean((untrained - wanted) ** 2) > 0.8
    assert np.mean((rated > 0) == (wanted > 0)) > 0.8


def test_a_log_without_ratings_leaves_the_rating_task_as_it_was_and_trains_the_others() -> None:
    known = a_catalogue(0)
    rated = some_questions(known, 24, 1)
    bare = [Question(one.history, one.target) for one in rated]
    some, none = (fit_prompted(of, known, by_colour(known), encode, epochs=1, share=1.0) for of in (rated, bare))
    torch.manual_seed(0)
    untouched = PromptedHead(DIM, len(VIEWS))
    assert torch.equal(none.liked.weight, untouched.liked.weight)
    assert not torch.equal(some.liked.weight, untouched.liked.weight)
    assert not torch.equal(none.of_prompt.weight, untouched.of_prompt.weight)


def test_reasons_are_shares_of_what_is_used_together_more_than_by_chance() -> None:
    together = sparse.csr_array(np.array([[0, 2.0, 6.0], [2.0, 0, 0], [6.0, 0, 0]]))
    long = np.array([0] * ITEMS + [1, 2])
    found = reasons([Question(long, 0), Question(np.array([2]), 1), Question(np.zeros(0, np.int64), 0)], together)
    assert found[0].tolist() == [0.0] * (ITEMS - 2) + [0.25, 0.75]
    assert not found[1:].any()


def test_prompts_tell_the_task_first_and_the_newest_item_next() -> None:
    history = [f"thing {n} of a long and winding name" for n in range(ITEMS + 3)]
    texts = [prompt(task, history, "a kettle") for task in TASKS]
    assert len({text.split()[0] for text in texts}) == len(TASKS)
    assert all(f"thing {ITEMS + 2} of a long and;" in text and "thing 2 " not in text for text in texts)
    assert prompt(RATING, ["a", "b"], "k", [4.5, None]) == "How will k be rated? So far: b; a (4.5)"
    assert prompt(NEXT, []) == "What comes next? So far: nothing"
    with pytest.raises(KeyError, match="sing"):
        prompt("sing", [])
