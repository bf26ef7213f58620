"""The file of the spaces: what it says, and what it may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.common.errors import SettingsError
from service.settings.service_settings import Settings
from service.spaces.spaces_file import OVERRIDABLE, SPACES_MAX, SpaceEntry, read


def spaces(folder: Path, text: str, **settings: Any) -> tuple[SpaceEntry, ...]:
    path = folder / "spaces.yaml"
    path.write_text(text)
    return read(Settings.model_validate({"spaces": path, **settings}))


def test_without_a_file_there_is_no_further_space() -> None:
    assert read(Settings()) == ()


def test_a_space_has_its_own_files_prefix_and_settings_and_otherwise_those_of_the_process(tmp_path: Path) -> None:
    text = """
    spaces:
      shoes: {artifact: shoes/2026-11}
      books:
        artifact: /models/books
        policies: books.yaml
        catalogue_updates: stock.jsonl
        key_prefix: "bookshop:"
        settings: {deadline_ms: 40, api_rate: 100/second}
        api_keys_file: keys
        ops_tokens_file: tokens
        share: 3
    """
    process = {"redis_prefix": "g:", "deadline_ms": 60.0, "artifact": "default", "catalogue_updates": "own.jsonl"}
    shoes, books = spaces(tmp_path, text, policies=tmp_path / "process.yaml", **process)
    assert (shoes.space.name, shoes.space.key_prefix, shoes.space.share) == ("shoes", "g:space:shoes:", 1.0)
    assert shoes.space.artifact == tmp_path / "shoes/2026-11"
    assert (shoes.space.policies, shoes.space.catalogue_updates) == (tmp_path / "process.yaml", None)
    assert (shoes.space.settings.deadline_ms, shoes.space.settings.redis_prefix) == (60.0, "g:space:shoes:")
    assert (shoes.api_keys_file, shoes.ops_tokens_file) == (None, None)
    assert (books.space.key_prefix, books.space.share, books.space.artifact) == (
        "bookshop:",
        3.0,
        Path("/models/books"),
    )
    assert (books.space.policies, books.space.catalogue_updates) == (tmp_path / "books.yaml", tmp_path / "stock.jsonl")
    assert (books.space.settings.deadline_ms, books.space.settings.api_rate) == (40.0, "100/second")
    assert (books.api_keys_file, books.ops_tokens_file) == (tmp_path / "keys", tmp_path / "tokens")
    assert books.space.copy_of("mode") != shoes.space.copy_of("mode")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("spaces: {", "is not valid YAML"),
        ("shops: {}", "write one mapping `spaces:`"),
        ("- a", "write one mapping `spaces:`"),
        ("spaces: {}", "or leave the setting out"),
        ("spaces: {a: {artifact: x}, a: {artifact: y}}", "line 1: a is there twice"),
        ("spaces: {default: {artifact: x}}", "spaces.default: .* choose another name"),
        ("spaces: {Shoes: {artifact: x}}", "spaces.Shoes: a name has 1 to 32 of a-z"),
        ("spaces: {-a: {artifact: x}}", "spaces.-a: a name has"),
        ("spaces: {1: {artifact: x}}", r"spaces.1: .*quote a number"),
        ("spaces: {a: {}}", "spaces.a.artifact: Field required"),
        ("spaces: {a: null}", "spaces.a: Input should be a valid dictionary"),
        ("spaces: {a: {artifact: x, model: y}}", "spaces.a.model: Extra inputs are not permitted"),
        ("spaces: {a: {artifact: x, share: 0}}", "spaces.a.share: Input should be greater than or equal to 0.01"),
        ("spaces: {a: {artifact: x, settings: {port: 1}}}", "spaces.a.settings.port: .*set GPT4REC_PORT"),
        ("spaces: {a: {artifact: x, settings: {policies: y}}}", "spaces.a.settings.policies: write it beside"),
        ("spaces: {a: {artifact: x, settings: {deadline: 1}}}", "settings.deadline: .*did you mean deadline_ms"),
        ("spaces: {a: {artifact: x, settings: {deadline_ms: 0}}}", "spaces.a.settings.deadline_ms: Input should be"),
        ("spaces: {a: {artifact: x, settings: {deadline_ms: 3000}}}", "spaces.a.settings: deadline_ms is above"),
        ("spaces: {a: {artifact: x, key_prefix: 'g'}}", "spaces.a: .*GPT4REC_REDIS_PREFIX begin alike"),
        ("spaces: {a: {artifact: x, key_prefix: 'gpt4rec:'}}", "spaces.a: .*GPT4REC_REDIS_PREFIX begin alike"),
        ("spaces: {a: {artifact: x, key_prefix: 'gpt4rec:a:'}}", "spaces.a: .*GPT4REC_REDIS_PREFIX begin alike"),
        ("spaces: {a: {artifact: x, key_prefix: 'gpt4rec:space:'}}", "spaces.a: .*GPT4REC_REDIS_PREFIX begin alike"),
        (
            "spaces: {a: {artifact: x}, b: {artifact: x, key_prefix: 'gpt4rec:space:a:b:'}}",
            "spaces.b: .*gpt4rec:space:a: of spaces.a begin alike",
        ),
    ],
)
def test_an_error_names_its_place_and_the_remedy(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=rf"^GPT4REC_SPACES: .*spaces\.yaml: .*{says}"):
        spaces(tmp_path, text)


def test_a_file_that_is_not_there_and_too_many_spaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read(Settings.model_validate({"spaces": tmp_path / "none.yaml"}))
    many = "spaces:\n" + "".join(f"  s{n}: {{artifact: x}}\n" for n in range(SPACES_MAX + 1))
    with pytest.raises(SettingsError, match=f"there are {SPACES_MAX + 1}; one deployment serves at most {SPACES_MAX}"):
        spaces(tmp_path, many)


def test_what_a_space_may_set_are_settings_and_no_secrets() -> None:
    assert set(Settings.model_fields) >= OVERRIDABLE
    assert not {"redis_url", "api_keys", "ops_tokens", "metrics_tokens", "hash_user_ids", "port"} & OVERRIDABLE
