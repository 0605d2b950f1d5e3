"""libfry reads any bytes without harm: libFuzzer and random malformed files, under sanitizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz import run

GCC, CLANG = shutil.which("gcc"), shutil.which("clang")
COMPILER = GCC or CLANG


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def stream(folder: Path, library: Path = run.FRY) -> Path:
    assert COMPILER is not None
    try:
        return run.build_stream(folder, COMPILER, library)
    except RuntimeError as error:
        if "asan" in str(error) or "ubsan" in str(error):
            pytest.skip("the compiler has no sanitizers (libasan, libubsan)")
        raise


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no gcc and no clang")
def test_random_malformed_files_do_no_harm(folder: Path) -> None:
    fed, opened = run.feed(stream(folder), 1500, 7, folder / "harmful")
    assert fed == 1500
    assert 300 < opened < 1200, "files must neither all be refused nor all be right"


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no gcc and no clang")
def test_a_read_beyond_the_end_is_found(folder: Path, tmp_path: Path) -> None:
    library = tmp_path / "fry"
    shutil.copytree(run.FRY, library)
    source = (library / "sample.c").read_text()
    kept = "if (count && (p < s->min_p"  # without it nothing is left to draw from, and what lies behind is drawn
    assert kept in source
    (library / "sample.c").write_text(source.replace(kept, "if ((p < s->min_p"))
    with pytest.raises(run.HarmError, match=r"use-after-poison|heap-buffer-overflow|token"):
        run.feed(stream(folder, library), 1500, 7, tmp_path / "harmful")
    assert (tmp_path / "harmful").stat().st_size > run.CHOICES


@pytest.mark.slow
@pytest.mark.skipif(CLANG is None, reason="no clang, which libFuzzer is part of")
def test_libfuzzer_finds_nothing(folder: Path) -> None:
    assert CLANG is not None
    try:
        program = run.build_fuzzer(folder, CLANG, short=True)
    except RuntimeError as error:
        if "fuzzer" in str(error) or "asan" in str(error):
            pytest.skip("clang has no libFuzzer (libclang-rt)")
        raise
    assert run.fuzz(program, 5, 1, folder / "corpus", folder / "crashes") > 50
