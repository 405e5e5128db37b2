"""Read LightGBM's own text of a model, that of `save_model`, as trees.

Source of the form: LightGBM's src/io/tree.cpp and gbdt_model_text.cpp. It imports no library.
"""

import json
from collections.abc import Mapping, Sequence
from math import inf

from functions.train.convert.tree_ensemble import Branch, Leaf, Link, Tree, TreeEnsemble, append_membership
from pilotlight.errors import InvalidInputError

CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of decision_type; the next two are the kind of gap
GAP_NONE, GAP_ZERO = 0, 1
LINKS: Mapping[str, Link] = {
    "binary": "sigmoid", "multiclass": "softmax", "multiclassova": "sigmoid", "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus", "poisson": "exp", "gamma": "exp", "tweedie": "exp",
    "regression": "identity", "regression_l1": "identity", "huber": "identity", "fair": "identity",
    "quantile": "identity", "mape": "identity", "lambdarank": "identity", "rank_xendcg": "identity",
    "custom": "identity", "": "identity",
}  # fmt: skip
CLASSIFIERS = {"binary", "multiclass", "multiclassova"}
Section = Mapping[str, str]


def read_text(text: str, source_name: str) -> TreeEnsemble:
    """Read the text; `InvalidInputError` for what is no such model, or cannot be said in ONNX."""
    try:
        return read_sections(text, source_name)
    except (KeyError, ValueError, IndexError) as exc:
        raise InvalidInputError(
            f"{source_name} is not a whole LightGBM model, as Booster.save_model writes it: {type(exc).__name__} {exc}."
        ) from exc


def read_sections(text: str, source_name: str) -> TreeEnsemble:
    """Read head, trees, objective and names."""
    head_text, *tree_texts = text.partition("\nend of trees")[0].split("\nTree=")
    head = parse_section(head_text)
    objective, *options = head.get("objective", "").split() or [""]
    if objective not in LINKS:
        raise InvalidInputError(
            f"{source_name} was trained for the objective {objective!r}, which is not known here; known are "
            f"{', '.join(sorted(filter(None, LINKS)))}."
        )
    per_round = int(head["num_tree_per_iteration"])
    rounds = len(tree_texts) // per_round
    factor = 1 / max(rounds, 1) if "average_output" in head else 1.0
    trees = [
        read_tree(parse_section(each), place % per_round, factor, source_name) for place, each in enumerate(tree_texts)
    ]
    settings = dict(option.partition(":")[::2] for option in options)
    names = tuple(head["feature_names"].split(" "))
    return TreeEnsemble(
        trees=trees,
        features=names,
        base=(0.0,) * per_round,
        link="signed_square" if "sqrt" in options else LINKS[objective],
        scale=float(settings.get("sigmoid", 1)) if LINKS[objective] == "sigmoid" else 1.0,
        is_classifier=objective in CLASSIFIERS,
        takes_double=True,
        categories=read_categories(text, head, names),
    )


def parse_section(text: str) -> Section:
    """Parse lines of `name=values`; a line without a value is a flag."""
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


def read_tree(section: Section, target: int, factor: float, source_name: str) -> Tree:
    """Read one tree: inner nodes first, leaves behind them; children are inner nodes, or -1 - leaf."""
    if section.get("is_linear", "0") == "1":
        raise InvalidInputError(
            f"{source_name} has linear trees (linear_tree), which no operator of ONNX computes; train it without them."
        )
    leaves = [factor * float(word) for word in section["leaf_value"].split()]
    if int(section["num_leaves"]) <= 1:
        return [Leaf({target: leaves[0]})]
    columns = {name: section[name].split() for name in ("split_feature", "threshold", "decision_type")}
    sides = [[int(word) for word in section[name].split()] for name in ("left_child", "right_child")]
    inner = len(sides[0])
    nodes: list[Branch | Leaf] = [Leaf({})] * inner
    nodes += [Leaf({target: value}) for value in leaves]
    places = [[child if child >= 0 else inner - 1 - child for child in side] for side in sides]
    for place, (left, right) in enumerate(zip(*places, strict=True)):
        feature, threshold = int(columns["split_feature"][place]), float(columns["threshold"][place])
        decision = int(columns["decision_type"][place])
        if decision & CATEGORICAL:
            members = read_members(section, int(threshold))
            append_membership(nodes, place, feature, members, left, right, missing_inside=False)
        else:
            write_split(nodes, place, Branch(feature, "BRANCH_LEQ", threshold, left, right, False), decision)
    return nodes


def write_split(nodes: list[Branch | Leaf], place: int, split: Branch, decision: int) -> None:
    """Write a split by a number, with its way for gaps; where 0 is a gap, a test for it comes first if it is needed."""
    kind, goes_left, below = decision >> 2 & 3, bool(decision & DEFAULT_LEFT), split.value >= 0
    missing_yes = below if kind == GAP_NONE else goes_left  # NaN counts as 0 where there were no gaps
    value = min(max(split.value, -1.7e308), 1.7e308) if abs(split.value) == inf else split.value
    branch = Branch(split.feature, split.test, value, split.yes, split.no, missing_yes)
    if kind != GAP_ZERO or goes_left == below:
        nodes[place] = branch
        return
    nodes.append(branch)
    gap_target = split.yes if goes_left else split.no
    nodes[place] = Branch(split.feature, "BRANCH_EQ", 0.0, gap_target, len(nodes) - 1, True)


def read_members(section: Section, index: int) -> list[int]:
    """Read the categories that go to the left, from a set of bits in words of 32."""
    bounds = [int(word) for word in section["cat_boundaries"].split()]
    words = [int(word) for word in section["cat_threshold"].split()][bounds[index] : bounds[index + 1]]
    return [32 * place + bit for place, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def read_categories(text: str, head: Section, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read the words of categorical features, where LightGBM was trained on a table that had them."""
    line = next((each for each in reversed(text.splitlines()) if each.startswith("pandas_categorical:")), "")
    lists = json.loads(line.partition(":")[2] or "null") or []
    infos = head.get("feature_infos", "").split(" ")
    chosen = [name for name, info in zip(names, infos, strict=False) if info != "none" and not info.startswith("[")]
    if len(chosen) != len(lists):
        return {}
    return {name: tuple(map(str, words)) for name, words in zip(chosen, lists, strict=True)}
