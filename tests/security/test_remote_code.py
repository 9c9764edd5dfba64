"""Code beside the weights of a pretrained network is never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tshsr.errors import TshsrError
from tshsr.pretrained.networks import load_config, load_network, load_preprocessing, load_tokenizer

CODE = """
import pathlib
from transformers import BertConfig as Config, BertModel as Network, BertTokenizer as Tokenizer
pathlib.Path({mark!r}).mkdir(exist_ok=True)
class Processor: pass
"""
ENTRIES = {
    "AutoConfig": "code.Config",
    "AutoModel": "code.Network",
    "AutoTokenizer": ["code.Tokenizer", None],
    "AutoImageProcessor": "code.Processor",
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder as of the hub, whose kind of network only its own code knows."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra features)")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "code.py").write_text(CODE.format(mark=str(tmp_path / "mark")))
    (folder / "config.json").write_text(json.dumps({"model_type": "of-its-own", "auto_map": ENTRIES}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": ENTRIES}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Own", "auto_map": ENTRIES, "size": {"height": 8, "width": 8}})
    )
    return folder


def test_code_beside_weights_is_never_run(weights: Path, tmp_path: Path) -> None:
    for load in (load_config, lambda name: load_network("AutoModel", name), load_tokenizer, load_preprocessing):
        with pytest.raises(TshsrError):
            load(str(weights))
        assert not (tmp_path / "mark").exists()
