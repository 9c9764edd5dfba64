"""Tiny text encoders of `transformers` with random weights and each kind of tokenizer, saved as a user has them."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, trainers

from tests.support.tiny_networks import LAYERS, VISION, transformers

CAPTIONS = (
    "A man's black/white t-shirt, on 2 dogs.",
    "Two dogs run on the grass!",
    'Don\'t stop, the man said: "wow"...',
    "A café at the beach, 10:30 o'clock",
    "A brown dog jumps over a fence",
    "man",
)
LENGTH = 40
"""Most tokens of a caption in these networks; the captions fit."""
WHOLE = {
    "bert": "bert",
    "distilbert": "bert",
    "mpnet": "mpnet",
    "roberta": "roberta",
    "xlm-roberta": "xlm-roberta",
    "clip": "clip",
    "siglip": "siglip",
    "siglip-gemma": "gemma",
    "siglip2": "siglip2",
}
"""Kinds of whole networks, as `AutoModel` loads them, and their tokenizers; siglip-gemma is a SigLIP 2 at a fixed
resolution, whose tokenizer keeps capitals."""
TOWERS = {"clip-text": "clip", "clip-projected": "clip", "siglip-text": "siglip", "siglip2-text": "siglip2"}
"""Kinds of text towers in folders of their own."""
TOKENIZER_OF = WHOLE | TOWERS
JOINT = ("clip", "siglip", "siglip-gemma", "siglip2", "clip-projected", "siglip-text", "siglip2-text")
"""Kinds with a space shared with images."""
ENGLISH_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCE = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]


def save_text(kind: str, folder: Path, seed: int = 0) -> Path:
    """A tiny network of a kind, with its tokenizer, in a new folder."""
    return _save(kind, tokenizer(TOKENIZER_OF[kind]), folder, seed)


def save_bert(words: Iterable[str], folder: Path) -> Path:
    """A tiny BERT with a vocabulary of these words, letters and marks, and pieces of single letters."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = dict.fromkeys([*ENGLISH_BERT, *letters, *(f"##{letter}" for letter in letters), *sorted({*words})])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return _save("bert", transformers.BertTokenizer(vocab=vocabulary, model_max_length=LENGTH), folder)


def _save(kind: str, rules: Any, folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    network = NETWORKS[kind](rules)
    with torch.no_grad():
        for values in network.parameters():  # so that captions differ, as with trained networks
            values.add_(torch.randn_like(values) * 0.1)
    network.save_pretrained(folder)
    rules.save_pretrained(folder)
    return folder


def layers(rules: Any, **changes: Any) -> dict[str, Any]:
    special = {name: getattr(rules, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {**LAYERS, "vocab_size": len(rules), "max_position_embeddings": LENGTH, **special, **changes}


def clip(rules: Any) -> Any:
    config = transformers.CLIPConfig(text_config=layers(rules), vision_config=VISION, projection_dim=16)
    return transformers.CLIPModel(config)


def siglip(rules: Any) -> Any:
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=layers(rules), vision_config=VISION))


def siglip2(rules: Any) -> Any:
    vision = {**LAYERS, "patch_size": 14, "num_patches": 64}
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=layers(rules), vision_config=vision))


def distilbert(rules: Any) -> Any:
    own = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": len(rules)}
    return transformers.DistilBertModel(transformers.DistilBertConfig(**own, max_position_embeddings=LENGTH))


def after_padding(rules: Any) -> dict[str, Any]:
    """Settings of networks that number positions from the padding token's id + 1 on."""
    return layers(rules, max_position_embeddings=LENGTH + rules.pad_token_id + 1)


def of(name: str, settings: Any = layers, **changes: Any) -> Any:
    """A function from a tokenizer to a network of a class."""
    config = getattr(transformers, f"{name.removesuffix('WithProjection').removesuffix('Model')}Config")
    return lambda rules: getattr(transformers, name)(config(**settings(rules), **changes))


NETWORKS = {
    "bert": of("BertModel"),
    "distilbert": distilbert,
    "mpnet": of("MPNetModel", after_padding),
    "roberta": of("RobertaModel", after_padding),
    "xlm-roberta": of("XLMRobertaModel", after_padding),
    "clip": clip,
    "siglip": siglip,
    "siglip-gemma": siglip,
    "siglip2": siglip2,
    "clip-text": of("CLIPTextModel"),
    "clip-projected": of("CLIPTextModelWithProjection", projection_dim=16),
    "siglip-text": of("SiglipTextModel"),
    "siglip2-text": of("Siglip2TextModel"),
}


def trained(model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any) -> dict[str, Any]:
    """The model of a tokenizer trained on the captions, as in its tokenizer.json."""
    rules = tokenizers.Tokenizer(model)
    rules.pre_tokenizer, rules.normalizer = pre_tokenizer, normalizer
    rules.train_from_iterator(CAPTIONS, trainer)
    return dict(json.loads(rules.to_str())["model"])


def merges(first: list[str], last: list[str], *rules: Any, size: int = 320, **options: Any) -> dict[str, Any]:
    """Vocabulary and merges of byte pair encoding, with some tokens before and after its own."""
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    suffix = {name: value for name, value in options.items() if name == "end_of_word_suffix"}
    model = trained(models.BPE(**suffix), trainer, *rules)
    words = dict.fromkeys([*first, *model["vocab"], *last])
    return {
        "vocab": {word: number for number, word in enumerate(words)},
        "merges": [tuple(pair) for pair in model["merges"]],
    }


def word_pieces(special: list[str], unknown: str) -> dict[str, Any]:
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    parts = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()
    return {"vocab": trained(models.WordPiece(unk_token=unknown), trainer, *parts)["vocab"]}


def unigrams() -> dict[str, Any]:
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SENTENCE, unk_token="<unk>", show_progress=False)
    parts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    model = trained(models.Unigram(), trainer, pre_tokenizers.Sequence(parts), normalizers.NFKC())
    return {"vocab": [tuple(entry) for entry in model["vocab"]]}


def sentence_pieces(file: Path) -> str:
    """A model of the sentencepiece library, as SigLIP has it."""
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed (extra features)")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([caption.lower() for caption in CAPTIONS] * 3),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    file.write_bytes(model.getvalue())
    return str(file)


@functools.cache
def tokenizer(kind: str) -> Any:
    """A tokenizer of a kind, trained on the captions; merges differ from process to process."""
    bytes_, short = pre_tokenizers.ByteLevel.alphabet(), {"model_max_length": LENGTH}
    match kind:
        case "bert":
            return transformers.BertTokenizer(**word_pieces(ENGLISH_BERT, "[UNK]"), **short)
        case "mpnet":
            return transformers.MPNetTokenizer(**word_pieces([*SENTENCE[:3], "[UNK]", "<mask>"], "[UNK]"), **short)
        case "roberta":
            rules = pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()
            return transformers.RobertaTokenizer(**merges(SENTENCE, [], *rules, initial_alphabet=bytes_), **short)
        case "xlm-roberta":
            return transformers.XLMRobertaTokenizer(**unigrams(), **short)
        case "clip":
            own = transformers.CLIPTokenizer().backend_tokenizer
            first, last = [*bytes_, *(f"{byte}</w>" for byte in bytes_)], ["<|startoftext|>", "<|endoftext|>"]
            options = {"initial_alphabet": bytes_, "end_of_word_suffix": "</w>"}
            return transformers.CLIPTokenizer(
                **merges(first, last, own.pre_tokenizer, own.normalizer, size=400, **options), **short
            )
        case "siglip":
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                file = sentence_pieces(Path(folder) / "spiece.model")
                return transformers.SiglipTokenizer(vocab_file=file, **short)
        case _:
            parts = [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Punctuation()]
            rules = pre_tokenizers.Sequence(parts), normalizers.Lowercase()
            name = {"gemma": "GemmaTokenizer", "siglip2": "Siglip2Tokenizer"}[kind]
            ends = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
            return getattr(transformers, name)(**merges(GEMMA, [], *rules, size=150), **ends)


def mean_pooling(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As sentence-transformers defines it (`Pooling`, mode mean_tokens): all tokens, start and end too."""
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
