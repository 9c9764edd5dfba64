"""Text encoders: each kind equals `transformers`' own outputs, and tokens find the words of the caption."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_text import CAPTIONS, JOINT, LENGTH, TOKENIZER_OF, TOWERS, WHOLE, mean_pooling, transformers
from tshsr.data.batches import NO_WORD, UNREAD
from tshsr.data.text import WordRules
from tshsr.errors import DataError, InputError
from tshsr.pretrained.text import Nodes, TextTokenizer, token_batch
from tshsr.pretrained.text_network import TextNetwork, node_states

Folder = Callable[[str], str]
KINDS = tuple(TOKENIZER_OF)
CLOSE = {"rtol": 0, "atol": 2e-6}
"""The same operations in batches of other shapes, on states of size 1."""


def own_outputs(kind: str, folder: str, captions: tuple[str, ...]) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    """Inputs, token states and projected vectors, as the library's documentation computes them."""
    rules = transformers.AutoTokenizer.from_pretrained(folder)
    if kind.startswith("siglip"):
        lower = [caption.lower() for caption in captions]
        inputs = rules(lower, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        inputs = {"input_ids": inputs["input_ids"]}
    else:
        inputs = dict(rules(list(captions), padding=True, return_tensors="pt"))
    if kind in TOWERS:
        name = {"clip-text": "CLIPTextModel", "clip-projected": "CLIPTextModelWithProjection"}.get(kind)
        name = name or {"siglip-text": "SiglipTextModel", "siglip2-text": "Siglip2TextModel"}[kind]
        given = getattr(transformers, name).from_pretrained(folder).eval()(**inputs)
        projected = given.text_embeds if kind == "clip-projected" else given.pooler_output
    else:
        network = transformers.AutoModel.from_pretrained(folder).eval()
        given = network.get_text_features(**inputs) if kind in JOINT else network(**inputs)
        projected = given.pooler_output if kind in JOINT else None
    return inputs, given.last_hidden_state, projected if kind in JOINT else None


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_states_and_projected_vectors_are_the_librarys_own(kind: str, text_folder: Folder) -> None:
    folder = text_folder(kind)
    inputs, states, projected = own_outputs(kind, folder, CAPTIONS)
    tokenizer, network = TextTokenizer(folder), TextNetwork.load(folder)
    batch = token_batch(tokenizer.encode(CAPTIONS), tokenizer.pad_id)
    assert torch.equal(batch.tokens, inputs["input_ids"])
    found, pooled = network(batch.tokens, batch.word_of_token != UNREAD)
    real = batch.word_of_token != UNREAD
    torch.testing.assert_close(found[real], states[real], **CLOSE)
    assert network.width == states.shape[2]
    assert network.joint_dim == (0 if projected is None else projected.shape[1])
    if projected is None:
        mask = inputs["attention_mask"][..., None].float() if "attention_mask" in inputs else real[..., None].float()
        projected = mean_pooling(states, mask)
    torch.testing.assert_close(pooled, projected, **CLOSE)
    assert network.pooled_width == pooled.shape[1]
    assert torch.cdist(pooled, pooled).fill_diagonal_(1).min() > 0.01, "captions differ"


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_caption_does_not_depend_on_its_batch(kind: str, text_folder: Folder) -> None:
    tokenizer, network = TextTokenizer(text_folder(kind)), TextNetwork.load(text_folder(kind))
    encoded = tokenizer.encode(CAPTIONS)
    batch = token_batch(encoded, tokenizer.pad_id)
    states, pooled = network(batch.tokens, batch.word_of_token != UNREAD)
    nodes = node_states(states, batch.word_of_token, batch.mask.shape[1])
    assert not nodes[~batch.mask].any()
    for row, one in enumerate(encoded):
        alone = token_batch([one], tokenizer.pad_id)
        own, projected = network(alone.tokens, alone.word_of_token != UNREAD)
        words = len(one.spans)
        torch.testing.assert_close(node_states(own, alone.word_of_token, words)[0], nodes[row, :words], **CLOSE)
        torch.testing.assert_close(projected[0], pooled[row], **CLOSE)


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind not in ("siglip", "clip")])
def test_nodes_are_the_words_of_the_caption_and_its_punctuation(kind: str, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind))
    words = ["A", "man", "'s", "black/white", "t-shirt", ",", "on", "2", "dogs", "."]
    assert tokenizer.words(CAPTIONS[0]) == words
    assert tokenizer.words(CAPTIONS[2])[:4] == ["Do", "n't", "stop", ","]
    assert tokenizer.words("cafe\N{COMBINING ACUTE ACCENT} Straße") == ["cafe\N{COMBINING ACUTE ACCENT}", "Straße"]


def test_a_piece_with_several_words_is_one_node(text_folder: Folder) -> None:
    assert TextTokenizer(text_folder("clip")).words('Dogs say "wow"...') == ["Dogs", "say", '"', "wow", '"...']


def test_siglip_drops_punctuation_and_words_lie_between_spaces(text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder("siglip"))
    assert tokenizer.words("A man's dog - said: wow!") == ["A", "man's", "dog", "said:", "wow!"]
    assert TextTokenizer(text_folder("siglip"), "pieces").words("A man's!") == ["A", "man", "s"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_but_start_end_and_padding_has_a_node(kind: str, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind))
    special = {*tokenizer.rules.all_special_ids} - {tokenizer.rules.unk_token_id}
    spaces = {tokenizer.rules.convert_tokens_to_ids(mark) for mark in ("\u2581", "\u0120")}
    for nodes in ("words", "pieces"):
        tokenizer.nodes = nodes
        for caption, one in zip(CAPTIONS, tokenizer.encode(CAPTIONS), strict=True):
            assert sorted({*one.word_of_token} - {NO_WORD}) == list(range(len(one.spans)))
            real = [node for node in one.word_of_token if node != NO_WORD]
            assert real == sorted(real)
            for token, node in zip(one.ids, one.word_of_token, strict=True):
                assert (node == NO_WORD) == (token in special) or token in spaces
            if nodes == "words":
                assert [caption[slice(*span)] for span in one.spans] == tokenizer.words(caption)
            else:
                assert len(set(real)) == len(real)


def test_an_emoji_of_several_pieces_is_one_node(text_folder: Folder) -> None:
    for kind in ("roberta", "clip", "siglip-gemma"):
        tokenizer, caption = TextTokenizer(text_folder(kind)), "a \N{DOG FACE} runs"
        one = tokenizer.encode([caption])[0]
        assert tokenizer.words(caption) == ["a", "\N{DOG FACE}", "runs"]
        assert one.word_of_token.count(1) >= 4, "one piece a byte"


def test_siglip_reads_lower_case_whatever_its_tokenizer_does(text_folder: Folder) -> None:
    for kind in ("siglip", "siglip-gemma", "siglip2"):
        tokenizer = TextTokenizer(text_folder(kind))
        upper, lower = tokenizer.encode(["TWO DOGS RUN", "two dogs run"])
        assert upper.ids == lower.ids, kind
        assert len(upper.ids) == LENGTH
        assert tokenizer.words("TWO DOGS RUN") == ["TWO", "DOGS", "RUN"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_without_some_nodes_is_as_if_they_had_never_been_written(kind: str, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind))
    words = tokenizer.words("Two brown dogs run on grass!")
    without = tokenizer.without("Two brown dogs run on grass!", [number not in (1, 3) for number in range(len(words))])
    assert without == "Two dogs on grass!"
    assert tokenizer.words(without) == [word for word in words if word not in ("brown", "run")]
    with pytest.raises(InputError, match=r"has 2 nodes; expected a mask of them, got 1 values\.$"):
        tokenizer.without("Two dogs", [True])


def test_a_caption_without_some_nodes_keeps_its_words_apart(text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder("bert"))

    def without(caption: str, *removed: str) -> str:
        return tokenizer.without(caption, [word not in removed for word in tokenizer.words(caption)])

    assert without("A man's dog.", "'s") == "A man dog."
    assert without("A man's dog.", "A", "man", "dog") == "'s ."
    assert without("dogs,two men", ",") == "dogs two men"
    assert without("  A man  runs ", "man") == "  A runs "
    assert without("A man runs ", "runs") == "A man"
    assert without("A man runs", "A") == "man runs"
    assert without("A man runs", "A", "runs") == "man"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_a_caption_may_be_punctuation(kind: str, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind))
    caption = "Two dogs run , on the grass!"
    words = tokenizer.words(caption)
    for mark in (word for word in words if not any(letter.isalnum() for letter in word)):
        rest = tokenizer.without(caption, [word == mark for word in words])
        assert rest == mark
        assert len(tokenizer.encode([rest], part=True)[0].spans) == 1
        with pytest.raises(InputError, match=r"caption 0 has no word"):
            tokenizer.encode([rest])


def test_words_beyond_the_length_stay_away_when_others_are_left_out(text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder("bert"))
    tokenizer._warned = True
    words = tokenizer.words(" ".join(["man"] * 50))
    rest = tokenizer.without(" ".join(["man"] * 50), [number > 0 for number in range(len(words))])
    assert tokenizer.words(rest) == words[1:]


@pytest.mark.parametrize("nodes", ["words", "pieces"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_node_of_a_word_has_its_first_character(kind: str, nodes: Nodes, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind), nodes)
    words, spelled = WordRules().words(CAPTIONS[0]), tokenizer.words(CAPTIONS[0])
    for word, node in zip(words, tokenizer.nodes_of_words(CAPTIONS[0]), strict=True):
        if node < 0:
            assert not word.isalnum(), "SigLIP's tokenizer drops punctuation"
        else:
            assert spelled[node].startswith(word[0]) or word in spelled[node]
    if nodes == "words" and kind == "bert":
        assert tokenizer.nodes_of_words(CAPTIONS[0]) == [*range(len(words))]


def test_unknown_text_and_whole_words_of_the_vocabulary_are_named(text_folder: Folder) -> None:
    assert TextTokenizer(text_folder("bert")).are_known("a \N{DOG FACE} man") == [True, False, True]
    assert TextTokenizer(text_folder("roberta")).are_known("a \N{DOG FACE}") == [True, True], "bytes are always known"
    for kind in ("bert", "clip", "roberta", "xlm-roberta", "siglip", "siglip2"):
        words = TextTokenizer(text_folder(kind)).known_words()
        assert {"man", "dogs"} <= {*words}, kind
        assert words == sorted(words)
        assert all(word.isalnum() for word in words)


@pytest.mark.parametrize("kind", ["bert", "clip", "siglip", "siglip2"])
def test_a_long_caption_is_cut_with_a_warning(kind: str, text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder(kind))
    with pytest.warns(UserWarning, match=r"^caption 8 has more than the 40 tokens that .* other long captions\.$"):
        short, long = tokenizer.encode(["man", " ".join(["man"] * 50)], first=7)
    ends = {"bert": 2, "clip": 2}.get(kind, 1)
    assert (len(long.ids), len(long.spans), len(short.spans)) == (LENGTH, LENGTH - ends, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode([" ".join(["man"] * 60)])  # warned of once
        assert not TextTokenizer(tokenizer.weights).encode([" ".join(["man"] * (LENGTH - ends))])[0].cut


def test_a_caption_without_a_word_is_refused(text_folder: Folder) -> None:
    tokenizer = TextTokenizer(text_folder("bert"))
    with pytest.raises(InputError, match=r"^caption 1 has no word: '\.\.\.'"):
        tokenizer.encode(["a dog", "..."])
    assert tokenizer.encode([]) == []


def test_fingerprints_tell_networks_and_tokenizers_apart(text_folder: Folder) -> None:
    networks = [TextNetwork.load(text_folder(kind)).fingerprint for kind in KINDS]
    assert len(set(networks)) == len(KINDS)
    assert TextNetwork.load(text_folder("bert")).fingerprint == networks[KINDS.index("bert")]
    tokenizers = {kind: TextTokenizer(text_folder(kind)).fingerprint for kind in WHOLE}
    assert tokenizers["bert"] == tokenizers["distilbert"] != tokenizers["mpnet"]
    assert len(set(tokenizers.values())) == len(WHOLE) - 2, "BERT's of DistilBERT, and SigLIP 2's in lower case"


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_network_is_rebuilt_from_its_configuration_and_state(kind: str, text_folder: Folder, tmp_path: Path) -> None:
    network, tokenizer = TextNetwork.load(text_folder(kind)), TextTokenizer(text_folder(kind))
    network.save_config(tmp_path)
    tokenizer.save(tmp_path)
    rebuilt = TextNetwork.empty(str(tmp_path))
    rebuilt.load_state_dict(network.state_dict())
    again = TextTokenizer(str(tmp_path))
    assert again.encode(CAPTIONS) == tokenizer.encode(CAPTIONS)
    assert (rebuilt.fingerprint, again.fingerprint) == (network.fingerprint, tokenizer.fingerprint)
    batch = token_batch(tokenizer.encode(CAPTIONS[:2]), tokenizer.pad_id)
    for own, other in zip(
        network(batch.tokens, batch.word_of_token != UNREAD),
        rebuilt.eval()(batch.tokens, batch.word_of_token != UNREAD),
        strict=True,
    ):
        assert (own is None and other is None) or torch.equal(own, other)


@pytest.mark.parametrize("kind", KINDS)
def test_its_layers_are_found(kind: str, text_folder: Folder) -> None:
    network = TextNetwork.load(text_folder(kind))
    assert len(network.blocks) == 2
    assert not any(values.requires_grad for values in network.parameters())
    assert not network.training


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    from tests.support.tiny_networks import save

    with pytest.raises(DataError, match=r"holds a Dinov2Model; expected a text encoder such as BERT"):
        TextNetwork.load(str(save("dinov2", tmp_path / "dinov2")))
    with pytest.raises(DataError, match=r"cannot load .*Expected a folder with config.json, model.safetensors and its"):
        TextTokenizer(str(tmp_path / "dinov2"))
    config = transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, vocab_size=50)
    transformers.T5Model(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(DataError, match="holds a T5Model; expected a text encoder"):
        TextNetwork.load(str(tmp_path / "t5"))


def test_node_states_are_means_of_tokens() -> None:
    states, nodes = torch.randn(3, 7, 5), torch.tensor([[-1, 0, 0, 1, 2, -1, -1], [0, 1, 2, 3, 3, 3, -1], [-1] * 7])
    found = node_states(states, nodes, 4)
    for row in range(3):
        for word in range(4):
            own = [states[row, token] for token in range(7) if nodes[row, token] == word]
            expected = torch.stack(own).mean(dim=0) if own else torch.zeros(5)
            torch.testing.assert_close(found[row, word], expected, rtol=0, atol=1e-6)
