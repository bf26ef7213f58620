from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loadtests.quality.cold_trial import cold_items, cold_questions, without
from model.data.dataset import sequences
from model.data.errors import DataError
from model.data.readers.amazon_office import read_amazon_office
from model.network.content_gate import ID_DROPOUT, ItemContentGate
from model.texts.sentence_vectors import SentenceEncoder, TextError, find_weights
from model.tokenizers.item_content import ItemContent
from model.tokenizers.loading import load_tokenizer
from model.tokenizers.semantic import SemanticTokenizer
from model.training.losses import draw_negatives, full_softmax, proposal
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network


def test_an_unseen_item_is_its_content_and_a_seen_one_mixes_by_its_count() -> None:
    model = random_network(n_items=4, content=3)
    gate = model.of_content
    assert gate is not None
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    gate.set_content(vectors, torch.tensor([0, 1, 99, 0]))
    ids, content = model.item.weight[:-2], gate.project(vectors)
    tokens = sum(table(model.codes[:, level]) for level, table in enumerate(model.token))
    got = model.item_table()[:-2] - tokens
    kappa = gate.log_kappa.exp().item()
    for item, share in enumerate([0, 1 / (1 + kappa), 99 / (99 + kappa), 1]):  # the last has no content
        torch.testing.assert_close(got[item], share * ids[item] + (1 - share) * content[item])
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(model.item_table(rows)[:2], model.item_table()[rows])


def test_without_content_a_network_has_no_gate() -> None:
    model = random_network()
    assert model.of_content is None
    assert not any("of_content" in name for name in model.state_dict())


def test_a_new_item_gets_the_codes_of_items_with_like_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    topics = np.eye(6, 16)
    topic = np.arange(60) % 6
    texts = topics[topic] + 0.01 * rng.normal(size=(60, 16))
    contents = [ItemContent(text=tuple(row)) for row in texts]
    of_topic = [np.flatnonzero(topic == t) for t in range(6)]
    item = np.concatenate([rng.permutation(of_topic[user % 6]) for user in range(30)])
    fitted = SemanticTokenizer.fit(contents, item, np.arange(31) * 10, code_levels=1, code_size=6)
    fitted.save(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    for t in range(6):
        usual = np.bincount(fitted.codes[topic == t, 0]).argmax()
        assert tokenizer.prefix(ItemContent(text=tuple(topics[t])))[0][0] == usual


def test_held_out_items_stay_in_the_catalogue_and_leave_every_history() -> None:
    dataset = tiny_dataset()
    cold = cold_items(dataset, share=0.1)
    assert 0 < len(cold) <= 3
    reduced = without(dataset, cold)
    assert sequences(reduced).item_ids == sequences(dataset).item_ids
    assert not set(reduced.events["item_id"]) & set(cold)
    log, train = sequences(reduced), sequences(reduced)
    split = cold_questions(dataset, reduced, train, cold)
    asked = split.test
    assert {log.item_ids[target] for target in asked.target} <= set(cold)
    full = sequences(dataset)
    last = {full.user_ids[u]: full.item[full.user(u)][-1] for u in range(full.n_users)}
    for i in range(len(asked)):
        user = split.sequences.user_ids[asked.users[i]]
        assert last[user] == asked.target[i]
        history = split.sequences.item[split.history(asked, i)]
        assert len(history)
        assert not {log.item_ids[item] for item in history} & set(cold)


def test_only_unseen_items_that_content_stands_for_are_left_alone_by_the_loss() -> None:
    gate = ItemContentGate(4, 2, 8)
    gate.set_content(torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 0]]), torch.tensor([3, 0, 5, 0]))
    assert gate.unseen_with_content.tolist() == [False, True, False, False]


def test_a_training_step_takes_a_share_of_the_items_for_unseen_and_a_served_one_none() -> None:
    torch.manual_seed(0)
    n = 4000
    gate, ids = ItemContentGate(n, 2, 8), torch.ones(n, 8)
    vectors = torch.ones(n, 2)
    vectors[::2] = 0.0
    gate.set_content(vectors, torch.full((n,), 9))
    content = gate.project(vectors)
    dropped = (gate.train()(ids, None) == content).all(dim=1)
    assert not dropped[::2].any(), "an item without content keeps its id"
    assert dropped[1::2].float().mean().item() == pytest.approx(ID_DROPOUT, abs=0.03)
    assert not (gate.eval()(ids, None) == content).all(dim=1).any()


def test_unseen_items_are_pushed_away_by_neither_softmax() -> None:
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    among = torch.tensor([True, False, True, True])
    for smoothing in (0.0, 0.1):
        q = torch.ones(2, 4)
        loss = full_softmax(q, table, torch.tensor([0, 3]), smoothing, among)
        (slope,) = torch.autograd.grad(loss, table)
        assert not slope[1].any()
        assert slope[[0, 2, 3]].any(dim=1).all()
        kept = torch.cat([table[:1], table[2:]])
        torch.testing.assert_close(loss, full_softmax(q, kept, torch.tensor([0, 2]), smoothing))
    log_q = proposal(np.array([0, 2, 2, 3]), among.numpy())
    assert log_q[1] == -torch.inf
    assert log_q.exp().sum().item() == pytest.approx(1)
    assert 1 not in draw_negatives(log_q, 200, torch.Generator().manual_seed(0))
    assert torch.isfinite(proposal(np.array([0, 2, 2, 3]), np.ones(4, bool))).all()


def _office(folder: Path, samples: list[str]) -> Path:
    rows = "\n".join(["split,user_id,history,target", *samples])
    (folder / "samples.csv.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
    item = {"item_id": "a", "title": "Pens", "brand": "", "description": "['<b>Blue</b> ink', 'ten']"}
    others = [{**item, "item_id": name} for name in "bc"]
    lines = "\n".join(json.dumps(one) for one in (item, *others))
    (folder / "items.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    return folder


def test_office_questions_laid_over_each_other_give_the_events_back(tmp_path: Path) -> None:
    raw = read_amazon_office(_office(tmp_path, ["train,u,a,b", "test,u,a b,c", "train,v,c,a"]))
    assert raw.log.rows.select("user_id", "item_id").rows() == [
        ("u", "a"), ("u", "b"), ("u", "c"), ("v", "c"), ("v", "a"),
    ]  # fmt: skip
    assert raw.items is not None
    assert raw.items.rows["text"][0] == "Pens. Blue ink ten"


def test_an_office_question_that_does_not_follow_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3"):
        read_amazon_office(_office(tmp_path, ["train,u,a,b", "test,u,c c,a"]))


def test_sentences_that_say_alike_have_alike_vectors() -> None:
    try:
        encoder = SentenceEncoder(find_weights())
    except TextError as error:
        pytest.skip(str(error))
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.", ""]
    vectors = encoder.encode(texts)
    alike = vectors @ vectors.T
    assert alike[0, 1] == pytest.approx(0.7553, abs=2e-3)  # what sentence-transformers publishes for the pair
    assert alike[0, 2] == pytest.approx(-0.1050, abs=2e-3)
    assert not vectors[3].any()
    np.testing.assert_allclose(encoder.encode(texts[:1]), vectors[:1], atol=1e-5)  # padding changes nothing
