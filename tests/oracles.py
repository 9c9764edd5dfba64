"""Every equation once more, as slow plain loops over Python floats; the package must agree with them.

Written from the formulas, not from the package: a softmax over the wrong axis shows here.
"""

import math

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


def similarity_vector(view: Matrix, weight: Matrix, cosine: Vector, bias: Vector, x: Vector, y: Vector) -> Vector:
    """Model description, section 3."""
    seen = [dot(row, [a - b for a, b in zip(x, y, strict=True)]) for row in view]
    vector = affine(weight, bias, [value**2 for value in seen])
    return unit([value + u * dot(x, y) for value, u in zip(vector, cosine, strict=True)])


def reasoning_level(
    nodes: Matrix, p: dict[str, Matrix], *, context: bool, local: bool, gate: bool
) -> tuple[Matrix, Matrix]:
    """Model description, section 4, steps 1 and 2: the nodes of the next level, and A."""
    assignment = [softmax([dot(seed, node) for node in nodes]) for seed in p["seeds"]]
    extracted = [mix(row, nodes) for row in assignment]
    neighbours = (nodes if local else []) + (extracted if context else [])
    updated = []
    for node in extracted:
        projected = [dot(row, node) for row in p["relation"]]
        weights = softmax([dot(projected, x) for x in neighbours])
        message = [max(0.0, x) for x in affine(p["message"], p["message_bias"], mix(weights, neighbours))]
        if gate:
            opening = [sigmoid(x) for x in affine(p["gate"], p["gate_bias"], node + message)]
            message = [g * x for g, x in zip(opening, message, strict=True)]
        updated.append(unit([a + b for a, b in zip(node, message, strict=True)]))
    return updated, assignment


def read_out(nodes: Matrix, opening: Vector, bias: float, weight: Vector) -> tuple[float, Vector]:
    """Model description, section 4, step 3: what the level adds to the logit, and beta."""
    gates = [sigmoid(dot(opening, node) + bias) for node in nodes]
    beta = [x / sum(gates) for x in gates]
    return dot(weight, mix(beta, nodes)), beta


def hierarchy(
    nodes: Matrix, levels: list[dict[str, Matrix]], outs: list[tuple[Vector, float, Vector]], **switches: bool
) -> tuple[Vector, Matrix]:
    """Model description, section 4: every level's contribution, and its weights followed back to the base nodes."""
    to_base = [[float(i == j) for j in range(len(nodes))] for i in range(len(nodes))]
    contribution, beta = read_out(nodes, *outs[0])
    contributions, weights = [contribution], [beta]
    for p, out in zip(levels, outs[1:], strict=True):
        nodes, assignment = reasoning_level(nodes, p, **switches)
        to_base = [mix(row, to_base) for row in assignment]
        contribution, beta = read_out(nodes, *out)
        contributions.append(contribution)
        weights.append(mix(beta, to_base))
    return contributions, weights


def pool(items: Matrix, item: Matrix, item_bias: Vector, whole: Matrix, weight: Vector) -> Vector:
    """Attention pooling: l2( sum_i softmax_i( w·tanh(A x_i + B mean) ) x_i )."""
    mean = [sum(x[k] for x in items) / len(items) for k in range(len(items[0]))]
    shift = [dot(row, mean) for row in whole]
    logits = [
        dot(weight, [math.tanh(a + b) for a, b in zip(affine(item, item_bias, x), shift, strict=True)]) for x in items
    ]
    return unit(mix(softmax(logits), items))


def hinge(
    scores: Matrix, image_of_caption: list[int], margin: float, *, hardest: bool, scored: list[list[bool]]
) -> float:
    """Bidirectional hinge, averaged over captions; unscored pairs and the image's own captions are no negatives."""
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
                total += max(costs) if hardest else sum(costs) / len(costs)
    return total / len(image_of_caption)
