"""Every equation as slow plain loops over Python floats; the package must agree with them.

Written from the formulas, not from the package: a softmax over the wrong axis shows here.
"""

import math
from collections.abc import Callable, Sequence

Vector = list[float]
Matrix = list[Vector]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: Vector) -> Vector:
    norm = max(math.sqrt(dot(a, a)), 1e-12)
    return [x / norm for x in a]


def softmax(logits: Vector) -> Vector:
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    return [x / sum(powers) for x in powers]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def affine(weight: Matrix, bias: Vector, x: Vector) -> Vector:
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def mix(weights: Vector, rows: Matrix) -> Vector:
    return [sum(w * row[k] for w, row in zip(weights, rows, strict=True)) for k in range(len(rows[0]))]


def attention(queries: Matrix, context: Matrix, inverse_temperature: float) -> Matrix:
    """Model description, section 2."""
    raw = [[dot(q, c) for c in context] for q in queries]
    leaky = [[x if x > 0 else 0.1 * x for x in row] for row in raw]
    norms = [math.sqrt(sum(row[c] ** 2 for row in leaky)) for c in range(len(context))]
    return [
        softmax([inverse_temperature * x / max(n, 1e-12) for x, n in zip(row, norms, strict=True)]) for row in leaky
    ]


def similarity_vector(
    view: Matrix, weight: Matrix, cosine: Vector, bias: Vector, x: Vector, y: Vector, product: Matrix | None = None
) -> Vector:
    """Model description, section 3."""
    seen = [dot(row, [a - b for a, b in zip(x, y, strict=True)]) for row in view]
    vector = affine(weight, bias, [value**2 for value in seen])
    if product is not None:
        both = [dot(row, x) * dot(row, y) for row in view]
        vector = [value + dot(row, both) for value, row in zip(vector, product, strict=True)]
    return unit([value + u * dot(x, y) for value, u in zip(vector, cosine, strict=True)])


def second_look(queries: Matrix, context: Matrix, shares: Vector, inverse_temperature: float) -> tuple[Vector, Vector]:
    """Model description, section 4: a context node as one query, and what it attends to."""
    query = unit(mix(shares, queries))
    weights = softmax([inverse_temperature * dot(query, c) for c in context])
    return query, unit(mix(weights, context))


def reasoning_level(
    nodes: Matrix,
    p: dict[str, Matrix],
    look: Callable[[Matrix, Matrix], Matrix] | None = None,
    *,
    context: bool,
    local: bool,
    gate: bool,
) -> tuple[Matrix, Matrix]:
    """Model description, section 4, steps 1 and 2: the nodes of the next level, and A.

    look: from A S and A to the context nodes with similarity vectors of their own.
    """
    assignment = [softmax([dot(seed, node) for node in nodes]) for seed in p["seeds"]]
    extracted = [mix(row, nodes) for row in assignment]
    neighbours = (nodes if local else []) + (extracted if context else [])
    updated = []
    for node in extracted if look is None else look(extracted, assignment):
        projected = [dot(row, node) for row in p["relation"]]
        weights = softmax([dot(projected, x) for x in neighbours])
        message = [max(0.0, x) for x in affine(p["message"], p["message_bias"], mix(weights, neighbours))]
        if gate:
            opening = [sigmoid(x) for x in affine(p["gate"], p["gate_bias"], node + message)]
            message = [g * x for g, x in zip(opening, message, strict=True)]
        updated.append(unit([a + b for a, b in zip(node, message, strict=True)]))
    return updated, assignment


def read_out(nodes: Matrix, opening: Vector, bias: float, weight: Vector) -> tuple[float, Vector]:
    """Model description, section 4, step 3: the contribution of the level to the logit, and beta."""
    gates = [sigmoid(dot(opening, node) + bias) for node in nodes]
    beta = [x / sum(gates) for x in gates]
    return dot(weight, mix(beta, nodes)), beta


def hierarchy(
    nodes: Matrix,
    levels: list[dict[str, Matrix]],
    outs: list[tuple[Vector, float, Vector]],
    looks: list[Callable[[Matrix, Matrix], Matrix]] | None = None,
    **switches: bool,
) -> tuple[Vector, Matrix, Matrix]:
    """Model description, section 4: contribution of each level, with its weights and terms by base node.

    looks: by level, from A S and its shares of the base nodes to context nodes.
    """
    to_base = [[float(i == j) for j in range(len(nodes))] for i in range(len(nodes))]
    contribution, beta = read_out(nodes, *outs[0])
    contributions, weights, added = [contribution], [beta], [terms(nodes, beta, outs[0][2])]
    for level, (p, out) in enumerate(zip(levels, outs[1:], strict=True)):

        def look(pooled: Matrix, assignment: Matrix, level: int = level, below: Matrix = to_base) -> Matrix:
            return looks[level](pooled, [mix(row, below) for row in assignment])

        nodes, assignment = reasoning_level(nodes, p, look if looks else None, **switches)
        to_base = [mix(row, to_base) for row in assignment]
        contribution, beta = read_out(nodes, *out)
        contributions.append(contribution)
        weights.append(mix(beta, to_base))
        added.append(mix(terms(nodes, beta, out[2]), to_base))
    return contributions, weights, added


def terms(nodes: Matrix, beta: Vector, weight: Vector) -> Vector:
    """Terms of a read-out: beta_p (w·S_p)."""
    return [share * dot(weight, node) for share, node in zip(beta, nodes, strict=True)]


def pool(items: Matrix, item: Matrix, item_bias: Vector, whole: Matrix, weight: Vector) -> Vector:
    """Attention pooling: l2( sum_i softmax_i( w·tanh(A x_i + B mean) ) x_i )."""
    mean = [sum(x[k] for x in items) / len(items) for k in range(len(items[0]))]
    shift = [dot(row, mean) for row in whole]
    logits = [
        dot(weight, [math.tanh(a + b) for a, b in zip(affine(item, item_bias, x), shift, strict=True)]) for x in items
    ]
    return unit(mix(softmax(logits), items))


def whole_vector(kind: str, pooled: Vector, own: Vector, weight: Matrix, bias: Vector) -> Vector:
    """v: l2( p + P l2(g) + b ) (added), l2( g ) (frozen), l2( l2(g) + A l2(g) + b ) (adapter)."""
    start = unit(own)
    if kind == "frozen":
        return start
    added = affine(weight, bias, start)
    return unit([x + y for x, y in zip(pooled if kind == "added" else start, added, strict=True)])


def late_interaction(regions: Matrix, words: Matrix) -> tuple[float, float]:
    """Mean over words of the best region's cosine, and mean over regions of the best word's."""
    by_words = [max(dot(region, word) for region in regions) for word in words]
    by_regions = [max(dot(region, word) for word in words) for region in regions]
    return sum(by_words) / len(words), sum(by_regions) / len(regions)


def contrastive(
    scores: Matrix, image_of_caption: list[int], temperature: float, scored: list[list[bool]] | None = None
) -> float:
    """Bidirectional InfoNCE, averaged over captions and directions; captions of the same image are not negatives."""
    total = 0.0
    for caption, image in enumerate(image_of_caption):
        positive = math.exp(scores[image][caption] / temperature)
        images = sum(
            math.exp(scores[i][caption] / temperature)
            for i in range(len(scores))
            if i == image or scored is None or scored[i][caption]
        )
        captions = sum(
            math.exp(scores[image][c] / temperature)
            for c in range(len(image_of_caption))
            if image_of_caption[c] != image and (scored is None or scored[image][c])
        )
        total -= (math.log(positive / images) + math.log(positive / (positive + captions))) / 2
    return total / len(image_of_caption)


def hinge(
    scores: Matrix,
    image_of_caption: list[int],
    margin: float,
    *,
    hardest: bool,
    scored: list[list[bool]],
    max_cost: float = math.inf,
) -> float:
    """Bidirectional hinge, averaged over captions; unscored pairs and captions of the same image are not negatives.

    A cost above `max_cost` is left out.
    """
    total = 0.0
    for caption, image in enumerate(image_of_caption):
        positive = scores[image][caption]
        images = [
            max(0.0, margin - positive + scores[i][caption])
            for i in range(len(scores))
            if i != image and scored[i][caption]
        ]
        captions = [
            max(0.0, margin - positive + scores[image][c])
            for c in range(len(image_of_caption))
            if image_of_caption[c] != image and scored[image][c]
        ]
        for costs in (images, captions):
            if costs:
                cost = max(costs) if hardest else sum(costs) / len(costs)
                total += cost if cost <= max_cost else 0.0
    return total / len(image_of_caption)


def match_zscores(images: Matrix, captions: Matrix, image_of_caption: list[int]) -> list[float]:
    """Mean of the z-scores of each pair among random ones, by the image and by the sibling captions."""

    def zscore(value: float, others: list[float]) -> float:
        mean = sum(others) / len(others)
        deviation = math.sqrt(sum((other - mean) ** 2 for other in others) / len(others))
        return (value - mean) / deviation if deviation > 1e-3 else 0.0

    def symmetric(target: Vector, targets: Matrix, caption: int) -> float:
        image, positive = image_of_caption[caption], dot(target, captions[caption])
        by_image = [dot(other, captions[caption]) for i, other in enumerate(targets) if i != image]
        by_caption = [dot(target, other) for c, other in enumerate(captions) if image_of_caption[c] != image]
        return (zscore(positive, by_image) + zscore(positive, by_caption)) / 2

    own = [symmetric(images[image], images, caption) for caption, image in enumerate(image_of_caption)]

    def prototype(image: int, without: int | None = None) -> Vector:
        members = [c for c, owner in enumerate(image_of_caption) if owner == image and c != without]
        total = [sum(max(own[c], 0.0) * captions[c][k] for c in members) for k in range(len(captions[0]))]
        return unit(total) if any(total) else total

    prototypes = [prototype(image) for image in range(len(images))]
    found = []
    for caption, image in enumerate(image_of_caption):
        siblings = prototype(image, without=caption)
        by_siblings = symmetric(siblings, prototypes, caption) if any(siblings) else own[caption]
        found.append((own[caption] + by_siblings) / 2)
    return found


def responsibilities(
    value: float, means: Sequence[float], deviations: Sequence[float], shares: Sequence[float]
) -> list[float]:
    """Posterior probability of each normal distribution of a mixture, by Bayes' rule."""
    likelihoods = [
        share * math.exp(-((value - mean) ** 2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))
        for mean, deviation, share in zip(means, deviations, shares, strict=True)
    ]
    return [likelihood / sum(likelihoods) for likelihood in likelihoods]


def mixture(values: list[float], rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Means, deviations and shares by EM, started at the quartiles; the lower mean is at most half the upper one."""
    ordered, last = sorted(values), len(values) - 1

    def quantile(q: float) -> float:
        below = int(q * last)
        return ordered[below] + (q * last - below) * (ordered[below + 1] - ordered[below])

    mean = sum(values) / len(values)
    whole = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    means = [min(quantile(0.25), quantile(0.75) / 2), quantile(0.75)]
    deviations, shares = [whole, whole], [0.5, 0.5]
    for _ in range(rounds):
        owned = [responsibilities(value, means, deviations, shares) for value in values]
        mass = [sum(row[k] for row in owned) for k in range(2)]
        means = [sum(row[k] * v for row, v in zip(owned, values, strict=True)) / mass[k] for k in range(2)]
        means[0] = min(means[0], means[1] / 2)
        squares = [sum(row[k] * (v - means[k]) ** 2 for row, v in zip(owned, values, strict=True)) for k in range(2)]
        deviations = [math.sqrt(squares[k] / mass[k]) for k in range(2)]
        shares = [mass[k] / len(values) for k in range(2)]
    return means, deviations, shares
