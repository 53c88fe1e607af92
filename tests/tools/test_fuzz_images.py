"""The program that reads damaged picture files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np


def test_a_seed_gives_the_same_damaged_file(fuzz_images: ModuleType) -> None:
    sound = fuzz_images.samples()
    files = [fuzz_images.file_of(seed, sound) for seed in range(50)]
    assert files == [fuzz_images.file_of(seed, sound) for seed in range(50)]
    assert sum(data != dict(sound)[name] for name, data in files) > 40
    assert len({name.split("_")[0] for name, _ in files}) > 5


def test_damages_of_short_files_end(fuzz_images: ModuleType) -> None:
    for seed in range(200):
        data = fuzz_images.damaged(b"\x89PNG\r\n\x1a\n12", np.random.default_rng(seed))
        assert isinstance(data, bytes)


def test_damaged_files_are_read_or_refused_in_one_sentence(fuzz_images: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, fuzz_images.__file__, "--count", "100", "--out", str(tmp_path / "faults")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "fault" not in done.stdout
    assert not (tmp_path / "faults").exists()
