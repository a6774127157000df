"""The model card of an exported checkpoint, read as the hub reads it."""

from huggingface_hub import ModelCard

from spacy_bertner.export.huggingface import export


def test_the_card_says_what_is_known(tagger, nlp, tmp_path, checkpoint):
    tagger("bert")
    export(nlp, tmp_path / "plain")
    card = ModelCard.load(tmp_path / "plain" / "README.md", repo_type="model")
    assert card.data.pipeline_tag == "token-classification" and card.data.language == "en"
    assert card.data.library_name == "transformers" and not card.data.eval_results
    assert "None are known." in card.text and "Not known." in card.text
    nlp.meta.update(name="rivers", description="Rivers and towns.", license="MIT")
    nlp.meta["sources"] = ["A corpus", {"name": "Another", "url": "https://example.org", "license": "CC0"}]
    nlp.meta["performance"] = {
        "ents_p": 0.5, "ents_r": 0.25, "ents_f": 0.3333, "ents_per_type": {"PER": {"p": 0.75, "r": 1.0, "f": 0.85}}
    }  # fmt: skip
    nlp.config["corpora"]["dev"] = {"@readers": "spacy.Corpus.v1", "path": "/home/someone/data/dev.spacy"}
    export(nlp, tmp_path / "known")
    card = ModelCard.load(tmp_path / "known" / "README.md", repo_type="model")
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"precision": 0.5, "recall": 0.25, "f1": 0.3333} and card.data.license == "mit"
    text = (tmp_path / "known" / "README.md").read_text()
    for part in ("# en_rivers", "Rivers and towns.", "- MISC", "| all | 50.0 | 25.0 | 33.3 |", "| PER | 75.0 | 100.0 |",
                 "- A corpus", "- Another, https://example.org, CC0", "- dev: `dev.spacy`"):  # fmt: skip
        assert part in text
    assert f"from `{checkpoint('bert').name}`" in text
    assert "/home/someone" not in text and str(checkpoint("bert").parent) not in text
