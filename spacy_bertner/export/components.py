"""What can be exported of a pipeline: its `bert_ner` components and the torch modules with their weights."""

from spacy.language import Language

from ..component import BertNER
from ..model.torch_shim import EncoderShim


def find_components(nlp: Language) -> dict[str, BertNER]:
    """Return the `bert_ner` components of a pipeline by name; raises ValueError if there are none."""
    components = {name: pipe for name, pipe in nlp.components if isinstance(pipe, BertNER)}
    if not components:
        raise ValueError(f"the pipeline has no component bert_ner, only {nlp.component_names}")
    return components


def shim_of(name: str, component: BertNER) -> EncoderShim:
    """Return the shim with the weights of a component; raises ValueError if it has no encoder of its own, or no weights."""
    shim = component.model.shims[0] if component.model.shims else None
    if shim is None:
        raise ValueError(
            f"{name}: is a head on vectors of another component, which cannot be exported by itself; train with "
            '@architectures = "spacy_bertner.BertTokenClassifier.v1" for a model that can'
        )
    if not isinstance(shim, EncoderShim):
        raise ValueError(
            f'{name}: runs on ONNX Runtime already: runtime: "onnx" has no weights to export; export the pipeline it was '
            "converted from"
        )
    return shim
