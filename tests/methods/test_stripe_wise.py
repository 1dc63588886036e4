from dataclasses import replace

from methods.groups import LayerPolicy
from methods.stripe_wise import StripeWise
from methods.testing import EXAMPLES, PruningMethodContract

#: The contract's networks under the layer policy of stripes; streams are no special case there.
STRIPED = {
    name: replace(
        example,
        policy=LayerPolicy(
            kind="stripes",
            protect_stem=name not in {"plain", "inverted_residual"},
        ),
    )
    for name, example in EXAMPLES.items()
    if name != "residual_stream"
}


class TestStripeWise(PruningMethodContract):
    method = StripeWise()
    examples = STRIPED


class TestNative(PruningMethodContract):
    method = StripeWise(share=0.0)
    examples = STRIPED
