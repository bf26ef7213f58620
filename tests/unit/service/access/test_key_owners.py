"""Which space a key belongs to, also after its file has changed."""

from __future__ import annotations

from pydantic import SecretStr

from service.access.key_owners import KeyOwners
from service.access.keys import Access, Keys


def keys(text: str) -> Keys:
    return Keys.parse(SecretStr(text), "test", rights=False)


def test_a_secret_belongs_to_one_space_and_tokens_of_the_process_to_none() -> None:
    owners = KeyOwners()
    process = Access(keys("front:a"), keys("root:b"), keys("prom:c"))
    shoes = Access(keys("shop:d"), keys("ops:e"), above=process)
    owners.add("default", process, "GPT4REC_API_KEYS")
    owners.add("shoes", shoes, "spaces.shoes")
    found = [owners.owner(secret) for secret in ("a", "b", "c", "d", "e", "f", "", None)]
    assert found == ["default", None, None, "shoes", "shoes", None, None, None]
    assert (owners.access("shoes"), owners.access("hats")) == (shoes, None)

    shoes.api_keys = keys("shop:new")
    assert [owners.owner(secret) for secret in ("d", "new", "e")] == [None, "shoes", "shoes"]


def test_a_secret_of_another_space_is_found_and_the_own_is_not() -> None:
    owners = KeyOwners()
    process = Access(keys("front:a"), keys("root:b"), keys("prom:c"))
    shoes = Access(keys("shop:d"), keys(""), above=process)
    owners.add("default", process, "GPT4REC_API_KEYS")
    owners.add("shoes", shoes, "spaces.shoes")
    assert owners.taken(shoes, keys("x:d")) is None
    assert [owners.taken(shoes, keys(f"x:{secret}")) for secret in "abc"] == ["GPT4REC_API_KEYS"] * 3
    assert owners.taken(process, keys("x:d")) == "spaces.shoes"


def test_tokens_of_the_process_hold_in_a_space_and_those_of_the_space_do_not_hold_outside() -> None:
    process = Access(keys(""), keys("root:b"), keys("prom:c"))
    shoes = Access(keys("shop:d"), keys("own:e"), above=process)
    assert (shoes.ops("b"), shoes.ops("e")) == ("root", "own")
    assert process.operator("e") is None
    shoes.metrics("c")
    shoes.metrics("e")
    assert [shoes.acts_in_all(secret) for secret in ("b", "c", "d", "e", None)] == [True, True, False, False, False]
    assert Access(keys(""), keys(""), above=process).has_operators
    process.trust("ops_tokens", False)
    assert (shoes.operator("b"), shoes.operator("e")) == (None, "own")
