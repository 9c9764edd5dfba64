"""The equations of RCAR, hard alignment, HREM and ESA's pooling as slow plain loops over Python floats."""

import math

from tests.support.baseline_oracles import leaky, mean, over_queries
from tests.support.oracles import Matrix, Vector, affine, dot, mix, sigmoid, softmax, unit


def tanh_layer(layer: dict, x: Vector) -> Vector:
    return [math.tanh(value) for value in affine(layer["weight"], layer["bias"], x)]


def gated_attention(
    queries: Matrix, context: Matrix, gates: Matrix, inverse_temperatures: Vector
) -> tuple[Matrix, Matrix]:
    """SCAN's attention of gated queries with one sharpness each, and the attended unit vectors."""
    gated = [[x * g for x, g in zip(query, gate, strict=True)] for query, gate in zip(queries, gates, strict=True)]
    raw = [[dot(q, c) for c in context] for q in gated]
    normalised = over_queries(raw, "clipped_l2norm")
    weights = [
        softmax([sharpness * x for x in row]) for row, sharpness in zip(normalised, inverse_temperatures, strict=True)
    ]
    return weights, [unit(mix(row, context)) for row in weights]


def alignment_vectors(queries: Matrix, attended: Matrix, layer: dict) -> Matrix:
    squares = [[(a - b) ** 2 for a, b in zip(q, x, strict=True)] for q, x in zip(queries, attended, strict=True)]
    return [unit(affine(layer["weight"], layer["bias"], row)) for row in squares]


def regulate_attention(vectors: Matrix, gates: Matrix, sharpness: Vector, p: dict) -> tuple[Matrix, Vector]:
    """New gates and inverse temperatures of the queries."""
    new_gates, new_sharpness = [], []
    for vector, gate, old in zip(vectors, gates, sharpness, strict=True):
        change = tanh_layer(p["gate_2"], tanh_layer(p["gate_1"], vector))
        new_gates.append([min(1.0, max(-1.0, a + b)) for a, b in zip(gate, change, strict=True)])
        (more,) = affine(p["sharpness_2"]["weight"], p["sharpness_2"]["bias"], tanh_layer(p["sharpness_1"], vector))
        new_sharpness.append(max(0.0, old + more))
    return new_gates, new_sharpness


def regulate_aggregation(vectors: Matrix, aggregate: Vector, p: dict) -> tuple[Vector, Vector]:
    """New aggregate, and the weights of the vectors."""
    whole = tanh_layer(p["whole"], aggregate)
    logits = [
        dot(p["weight"], [a * b for a, b in zip(tanh_layer(p["item"], vector), whole, strict=True)])
        for vector in vectors
    ]
    weights = softmax(logits)
    return unit(mix(weights, vectors)), weights


def rcar(queries: Matrix, context: Matrix, inverse_temperature: float, p: dict) -> tuple[float, Matrix, Vector]:
    """Score, and attention and node weights of the last step."""
    gates = [[1.0] * len(queries[0]) for _ in queries]
    sharpness = [inverse_temperature] * len(queries)
    aggregate: Vector = []
    for number, (layer, aggregation) in enumerate(zip(p["alignments"], p["aggregations"], strict=True)):
        attention, attended = gated_attention(queries, context, gates, sharpness)
        vectors = alignment_vectors(queries, attended, layer)
        aggregate, weights = regulate_aggregation(vectors, aggregate or mean(vectors), aggregation)
        if number < len(p["regulators"]):
            gates, sharpness = regulate_attention(vectors, gates, sharpness, p["regulators"][number])
    return sigmoid(dot(p["score"], aggregate) + p["bias"]), attention, weights


def best_cosines(queries: Matrix, context: Matrix) -> Vector:
    return [max(dot(q, c) for c in context) for q in queries]


def hard_alignment(queries: Matrix, context: Matrix, how: str, temperature: float) -> float:
    best = best_cosines(queries, context)
    if how == "logsumexp":
        return math.log(sum(math.exp(x / temperature) for x in best))
    return sum(best) / (len(best) if how == "mean" else 1)


def channel_pool(items: Matrix, weight: Matrix) -> Vector:
    """ESA: a softmax over the items for each channel."""
    logits = [[dot(row, x) for row in weight] for x in items]
    pooled = []
    for channel in range(len(items[0])):
        shares = softmax([row[channel] for row in logits])
        pooled.append(sum(share * x[channel] for share, x in zip(shares, items, strict=True)))
    return unit(pooled)


def layer_norm(x: Vector, layer: dict) -> Vector:
    middle = sum(x) / len(x)
    scale = math.sqrt(sum((value - middle) ** 2 for value in x) / len(x) + 1e-5)
    return [w * (value - middle) / scale + b for value, w, b in zip(x, layer["weight"], layer["bias"], strict=True)]


def set_layer(items: Matrix, bias: Matrix, p: dict) -> Matrix:
    """A post-norm transformer layer with a term in its logits; -inf leaves a pair out."""
    width = len(items[0]) // p["heads"]
    queries, values = ([affine(p[n]["weight"], p[n]["bias"], x) for x in items] for n in ("query", "value"))
    keys = [[dot(row, x) for row in p["key"]] for x in items]
    result = []
    for i, item in enumerate(items):
        mixed: Vector = []
        for head in range(p["heads"]):
            part = slice(head * width, (head + 1) * width)
            known = [j for j in range(len(items)) if bias[i][j] > -math.inf]
            weights = softmax([dot(queries[i][part], keys[j][part]) / math.sqrt(width) + bias[i][j] for j in known])
            mixed += mix(weights, [values[j][part] for j in known])
        output = affine(p["output"]["weight"], p["output"]["bias"], mixed)
        middle = layer_norm([a + b for a, b in zip(item, output, strict=True)], p["norm_attention"])
        hidden = [max(0.0, x) for x in affine(p["first"]["weight"], p["first"]["bias"], middle)]
        update = affine(p["second"]["weight"], p["second"]["bias"], hidden)
        result.append(layer_norm([a + b for a, b in zip(middle, update, strict=True)], p["norm_update"]))
    return result


def fragment_pool(items: Matrix, share: float, p: dict) -> Vector:
    """HREM's pooling: the two largest values of each channel, and the mean of a transformer layer."""
    mixed = mean(set_layer(items, [[0.0] * len(items) for _ in items], p))
    largest = [sorted((x[d] for x in items), reverse=True)[:2] for d in range(len(items[0]))]
    return unit([share * sum(best) / len(best) + (1 - share) * m for best, m in zip(largest, mixed, strict=True)])


def best_matches(queries: Matrix, context: Matrix) -> Vector:
    """The best normalised match of each query."""
    rows = [[leaky(dot(q, c)) for c in context] for q in queries]
    columns = [unit(list(column)) for column in zip(*rows, strict=True)]
    return [max(column[i] for column in columns) for i in range(len(queries))]


def relevance(best: Vector, count: int, p: dict) -> tuple[float, float]:
    """Relevance of a pair, and the mean of its best matches."""
    middle = sum(best) / len(best)
    largest = (sorted(best, reverse=True) + [0.0] * count)[:count]
    hidden = [max(0.0, x) for x in affine(p["first"]["weight"], p["first"]["bias"], largest)]
    (more,) = affine(p["second"]["weight"], p["second"]["bias"], hidden)
    return more + middle, middle


def closeness(x: Vector, y: Vector) -> float:
    return math.exp(-math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True))))


def nearest(values: Vector, share: float) -> list[bool]:
    """True at the largest values of a row."""
    count = max(1, int(share * len(values)))
    bound = sorted(values, reverse=True)[count - 1]
    return [value >= bound for value in values]


def divergence(rows: Matrix, guide: Matrix) -> float:
    total = 0.0
    for row, other in zip(rows, guide, strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(softmax(row), softmax(other), strict=True))
    return total / len(rows)


def batch_relations(
    v: Matrix, t: Matrix, regions: list[Matrix], words: list[Matrix], image_of_caption: list[int], p: dict
) -> tuple[Matrix, Matrix, float]:
    """HREM: embeddings of a batch with their relations, and the penalty."""
    by_image, image_means, by_caption, caption_means = ([] for _ in range(4))
    for picture in regions:
        pairs = [relevance(best_matches(picture, text), p["count"], p["image_relevance"]) for text in words]
        by_image.append([pair[0] for pair in pairs])
        image_means.append([pair[1] for pair in pairs])
    for text in words:
        pairs = [relevance(best_matches(text, picture), p["count"], p["caption_relevance"]) for picture in regions]
        by_caption.append([pair[0] for pair in pairs])
        caption_means.append([pair[1] for pair in pairs])
    own = [[c for c, image in enumerate(image_of_caption) if image == j] for j in range(len(v))]
    same_image = [[sum(dot(x, t[c]) for c in own[j]) / len(own[j]) for j in range(len(v))] for x in v]
    same_caption = [[dot(x, v[image]) for image in image_of_caption] for x in t]
    bias = []
    for i, x in enumerate(v):
        near = nearest(same_image[i], p["connected"]) + nearest(image_means[i], p["connected"])
        values = [closeness(x, other) for other in v] + by_image[i]
        bias.append([value if kept else -math.inf for value, kept in zip(values, near, strict=True)])
    for c, x in enumerate(t):
        near = nearest(caption_means[c], p["connected"]) + nearest(same_caption[c], p["connected"])
        values = by_caption[c] + [closeness(x, other) for other in t]
        bias.append([value if kept else -math.inf for value, kept in zip(values, near, strict=True)])
    related = [unit(row) for row in set_layer([*v, *t], bias, p["layer"])]
    guide = [[closeness(x, y) for y in t] for x in v]
    turned = [list(column) for column in zip(*guide, strict=True)]
    penalty = p["penalty"] * (divergence(by_image, guide) + divergence(by_caption, turned))
    return related[: len(v)], related[len(v) :], penalty
