from pathlib import Path

import pytest

from animegen.config.instantiate import build
from animegen.engine import AnimegenError


def test_a_module_that_cannot_be_imported_is_distinguished_from_a_missing_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_family.py").write_text("from animegen.nn import nothing_of_that_name\nclass Net: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AnimegenError, match=r"'broken_family' cannot be imported: .*nothing_of_that_name"):
        build({"_target_": "broken_family.Net"}, "model.generator")
    with pytest.raises(AnimegenError, match=r"there is no 'animegen\.losses\.GramStile'.*Did you mean 'GramStyle'"):
        build({"_target_": "animegen.losses.GramStile"}, "model.loss")
