"""The contract asked of a user's own method without a test runner, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final
from unittest import SkipTest

from methods.base import PruningMethod, create
from methods.errors import MethodError
from methods.own_code import OwnCodeError, is_reference
from methods.structure.layout import LayerPolicy, Layout
from methods.testing.contract import PruningMethodContract
from methods.testing.example_networks import CLASSES, EXAMPLES, Example
from methods.testing.tiny_session import TinySession

_EPOCHS: Final = 64  #: Of a session, so that a method may train as its defaults say.

#: Each rule of the contract, and what keeps it.
RULES: Final[Mapping[str, str]] = {
    "test_it_is_built_from_its_name_and_settings": (
        "Make it a dataclass(frozen=True, kw_only=True) whose fields are all of its settings."
    ),
    "test_it_accepts_the_network": "`check` may refuse a network, and must not change it.",
    "test_every_filter_has_one_finite_score": (
        "Return one score per filter, [C_out], for every group, none of them NaN or infinite; "
        "mind filters of zeros and layers without a batch norm (`scale` is None)."
    ),
    "test_reordered_filters_have_reordered_scores": (
        "Score a filter by what belongs to it, not by its place among the others."
    ),
    "test_one_seed_gives_one_choice": (
        "Draw from `filters.generator` or `session.generator(purpose)`, not from a generator that "
        "all share, and keep nothing from one call for the next."
    ),
    "test_the_network_is_left_as_found_unless_trained": (
        "Remove hooks, and put back weights, gradients, `requires_grad` and the mode of every "
        "layer; work on a copy, or change the network through `session.train` only."
    ),
    "test_the_network_sees_training_images_only": (
        "Show the network what `session.batches` yields, as it is."
    ),
    "test_ratio_0_is_the_identity": "Keep every filter of a group whose ratio is 0.",
    "test_every_group_keeps_a_filter": (
        "Remove `removed_count(group.name, group.width, ratio)` filters of a group, never all."
    ),
    "test_the_shrunk_network_computes_what_the_masked_one_does": (
        "Give a plan of filters that stay, each once and in order, and leave the network's layers "
        "as they are."
    ),
    "test_the_shrunk_network_costs_what_was_predicted": (
        "Leave the network's layers and the layout as they are: the cost is predicted from them."
    ),
    "test_the_shrunk_network_still_learns": (
        "Leave `requires_grad` as it was, and no hooks that stop gradients."
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleAnswer:
    """How a method keeps one rule of the contract."""

    rule: str  #: A sentence.
    advice: str  #: What keeps it.
    held_on: tuple[str, ...] = ()  #: Example networks.
    raised: Mapping[str, BaseException] = field(default_factory=dict)  #: By example network.
    not_asked: str | None = None  #: Why, where it was asked of none.

    @property
    def is_kept(self) -> bool:
        """Whether nothing went wrong where it was asked."""
        return not self.raised


def ask(reference: str) -> list[RuleAnswer]:
    """Ask a method of the user's, with its default settings, for every rule of the contract.

    Networks that it refuses by ``accept`` are left out.

    Args:
        reference: ``mine.py:Name`` or ``package.module:Name``.

    Raises:
        OwnCodeError: It cannot be loaded, or is no method.
        MethodError: It has no default settings, or refuses every example network.
    """
    if not is_reference(reference):
        raise OwnCodeError(reference, "write mine.py:Name or package.module:Name.")
    contract = _OwnContract(reference)
    return [_answer(contract, name) for name in RULES]


class _OwnContract(PruningMethodContract):
    """The contract of one method of the user's, on the examples that it accepts."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.method = create(reference)  # type: ignore[misc]  # of the instance, here
        self.examples = accepted(self.method)  # type: ignore[misc]
        self.scores_follow_filters = not self._chance_decides()  # type: ignore[misc]

    def session(self, layout: Layout, *, seed: int = 0) -> TinySession:
        """Return a session with enough epochs for most defaults."""
        return TinySession(layout, classes=CLASSES, epochs=_EPOCHS, seed=seed)

    def test_it_is_built_from_its_name_and_settings(self) -> None:
        """Build it as a stored trial does: from what a specification names."""
        settings = {f.name: getattr(self.method, f.name) for f in fields(self.method) if f.init}
        assert create(self.reference, settings) == self.method

    def _chance_decides(self) -> bool:
        """Say whether another seed gives other scores to the same network and images."""
        example = next(iter(self.examples.values()))
        layout, sessions = (
            example.layout(),
            [self.session(example.layout(), seed=s) for s in (0, 1)],
        )
        sessions[1].images, sessions[1].labels = sessions[0].images, sessions[0].labels
        try:
            first, other = (self.method.scores(example.network(), s) for s in sessions)
            return any(not first[g.name].equal(other[g.name]) for g in layout.groups)
        except (Exception, SystemExit):  # which the rules tell of
            return False


def accepted(method: PruningMethod) -> dict[str, Example]:
    """Return the example networks a method does not refuse, under a policy for what it prunes.

    Raises:
        MethodError: It refuses them all.
    """
    found, refusals = {}, []
    for name, example in EXAMPLES.items():
        if method.unit == "stripes":
            example = replace(example, policy=LayerPolicy(kind="stripes"))
        try:
            method.accept(example.network(), example.layout())
        except MethodError as error:
            refusals.append(error)
        except (Exception, SystemExit):
            found[name] = example  # where a rule tells of it
        else:
            found[name] = example
    if not found:
        raise refusals[0]
    return found


def _answer(contract: _OwnContract, name: str) -> RuleAnswer:
    rule = name.removeprefix("test_").replace("_", " ")
    question = getattr(contract, name)
    # A rule about the settings alone takes no network.
    networks = contract.examples if "example" in question.__annotations__ else {"": None}
    held, raised = [], {}
    for network, example in networks.items():
        try:
            question(*(() if example is None else (example,)))
        except SkipTest as reason:
            return RuleAnswer(rule=rule, advice=RULES[name], not_asked=str(reason))
        except (Exception, SystemExit) as error:
            raised[network] = error
        else:
            held.append(network)
    return RuleAnswer(rule=rule, advice=RULES[name], held_on=tuple(held), raised=raised)
