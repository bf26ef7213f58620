"""docs/training.md is complete and up to date, and its rules are those of the code."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from model.network.config import SIZES, NetworkConfig, setting_of
from model.tokenizers.semantic import default_code_size
from model.training import reference
from model.training.config import SETTINGS, TrainConfig
from model.training.defaults import RULES
from model.training.method_settings import MethodSettings

# Fields of the network that follow from the data or from another setting.
FROM_THE_DATA = {
    "n_items", "code_sizes", "n_types", "n_context_rows", "n_slots", "has_time", "encoder", "n_fields", "content",
    "prompt_slot", "prompt_first", "prompt_rows", "n_attribute_rows", "n_known_queries",
}  # fmt: skip


def test_every_training_setting_is_documented() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.page(), "run: python -m model.training.reference"
    names = {f.name for f in fields(NetworkConfig)} - FROM_THE_DATA
    declared = {f"network.{f.name}": setting_of(f) for f in fields(NetworkConfig) if f.name in names}
    declared |= {f.name: setting_of(f) for f in fields(TrainConfig)}
    for name, setting in declared.items():
        assert setting is not None, f"{name}: declare it with model.network.config.setting"
        assert setting.meaning.endswith("."), name
        assert setting.change.endswith("."), name
        assert f"| `{name}` |" in page


def test_every_training_method_has_a_line_that_switches_it_on() -> None:
    block = (
        reference.PAGE.read_text(encoding="utf-8").partition("\n## Methods\n")[2].split("```")[1].replace("\\\n", " ")
    )
    lines = [line.split() for line in block.splitlines() if line.startswith("gpt4rec train")]
    switched: set[str] = set()
    for words in lines:
        made = TrainConfig.build(None, [word for word in words if "=" in word])
        off = MethodSettings()
        on = {name for name, value in made.methods.items() if value != getattr(off, name)}
        assert on, words
        switched |= on
    belongs_to_another = {"pretrain_attribute", "pretrain_contrast", "distil", "distil_temperature", "adapter",
                          "adversarial_size", "meta_rate"}  # fmt: skip
    assert {f.name for f in fields(MethodSettings)} - switched == belongs_to_another


def test_every_setting_has_its_place_on_the_page_once() -> None:
    placed = [name for names in reference.SECTIONS.values() for name in names]
    assert sorted(placed) == sorted(SETTINGS)


def test_a_setting_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "setting_of", lambda _: None)
    with pytest.raises(ValueError, match=r"size has no description; declare it with .*setting"):
        reference.page()


def test_every_default_that_is_left_open_has_its_rule() -> None:
    open_values = {f.name for f in fields(TrainConfig) if f.default in (None, -1)} | {"code_size"}
    assert {name for name in RULES if not name.startswith("network.")} == open_values
    assert {name for name in RULES if name.startswith("network.")} == {"network.layers", "network.dropout"}


@pytest.mark.parametrize(("items", "levels", "size"), [(10, 2, 8), (3000, 2, 64), (10**6, 2, 256), (10**6, 3, 128)])
def test_the_rule_of_the_code_size_is_the_one_on_the_page(items: int, levels: int, size: int) -> None:
    nearest = 2 ** round(math.log2(items ** (1 / levels)))
    assert default_code_size(items, levels) == size == min(256, max(8, nearest))
    assert "to the power of 1 / `code_levels`, from 8 to 256" in RULES["code_size"]


def test_sizes_set_only_documented_fields() -> None:
    documented = {f.name for f in fields(NetworkConfig) if setting_of(f) is not None}
    assert {name for size in SIZES.values() for name in size} <= documented
