"""The equations of DSGSL (our instantiation), IMRAM and SHAN as slow plain loops over Python floats."""

import math

from tests.support.oracles import Matrix, Vector, affine, attention, dot, mix, sigmoid, softmax, unit


def gated(x: Vector, y: Vector, p: dict) -> Vector:
    """A compared query, mixed with its attended vector channel by channel."""
    from_query = affine(p["query"]["weight"], p["query"]["bias"], x)
    from_difference = [dot(row, [a - b for a, b in zip(x, y, strict=True)]) for row in p["difference"]]
    gates = [sigmoid(a + b) for a, b in zip(from_query, from_difference, strict=True)]
    return [g * a + (1 - g) * b for g, a, b in zip(gates, x, y, strict=True)]


def gated_similarity(x: Vector, y: Vector, p: dict) -> Vector:
    """A similarity vector whose compared query is gated; its cosine is that of x and y themselves."""
    own, other = ([dot(row, side) for row in p["view"]] for side in (x, y))
    own = gated(own, other, p["gate"])
    vector = affine(p["weight"], p["bias"], [(a - b) ** 2 for a, b in zip(own, other, strict=True)])
    if p["product"] is not None:
        both = [a * b for a, b in zip(own, other, strict=True)]
        vector = [value + dot(row, both) for value, row in zip(vector, p["product"], strict=True)]
    return unit([value + u * dot(x, y) for value, u in zip(vector, p["cosine"], strict=True)])


def dual_graph(nodes: Matrix, p: dict) -> Matrix:
    """One step on the graph of the local nodes and on that of local nodes and the global one."""
    whole, *local = nodes
    edges = [dot(node, [dot(row, whole) for row in p["edge"]]) for node in local]
    given = [dot(row, whole) for row in p["from_global"]]
    updated = []
    for node, edge in zip(local, edges, strict=True):
        query = [dot(row, node) for row in p["relation"]]
        found = mix(softmax([dot(query, other) for other in local]), local)
        change = affine(p["local"]["weight"], p["local"]["bias"], found)
        gate = sigmoid(edge + p["opening"])
        change = [max(0.0, a + gate * b) for a, b in zip(change, given, strict=True)]
        updated.append(unit([a + b for a, b in zip(node, change, strict=True)]))
    pooled = mix(softmax(edges), local)
    change = [max(0.0, a) for a in affine(p["to_global"]["weight"], p["to_global"]["bias"], pooled)]
    return [unit([a + b for a, b in zip(whole, change, strict=True)]), *updated]


def filtered(nodes: Matrix, opening: dict) -> tuple[Vector, Vector]:
    """The sum of the nodes by normalised gates, and these."""
    gates = [sigmoid(affine(opening["weight"], opening["bias"], node)[0]) for node in nodes]
    beta = [gate / sum(gates) for gate in gates]
    return mix(beta, nodes), beta


def rebuilt(rows: Matrix, weight: Matrix, neighbours: int, temperature: float) -> Matrix:
    """Embeddings of a batch, each with what its nearest neighbours add."""
    result = []
    for i, row in enumerate(rows):
        others = sorted((j for j in range(len(rows)) if j != i), key=lambda j: -dot(row, rows[j]))[:neighbours]
        if not others:
            result.append(row)
            continue
        weights = softmax([dot(row, rows[j]) / temperature for j in others])
        found = mix(weights, [rows[j] for j in others])
        result.append(unit([a + dot(w, found) for a, w in zip(row, weight, strict=True)]))
    return result


def cosine(a: Vector, b: Vector) -> float:
    return dot(unit(a), unit(b))


def imram(queries: Matrix, context: Matrix, inverse_temperature: float, steps: int, p: dict) -> tuple[float, Matrix]:
    """Score of a stream, and the mean of its steps' attention."""
    states, score, looks = queries, 0.0, []
    for step in range(steps):
        weights = attention([unit(x) for x in states], context, inverse_temperature)
        looks.append(weights)
        found = [mix(row, context) for row in weights]
        score += sum(cosine(q, c) for q, c in zip(queries, found, strict=True)) / len(queries)
        if step + 1 < steps:
            states = [remembered(x, c, p) for x, c in zip(states, found, strict=True)]
    return score, [
        [sum(look[q][c] for look in looks) / steps for c in range(len(context))] for q in range(len(queries))
    ]


def remembered(x: Vector, c: Vector, p: dict) -> Vector:
    """A query refined by what it found: gate and new content from both."""
    both = affine(p["weight"], p["bias"], x + c)
    opening, new = both[: len(x)], both[len(x) :]
    gates = [sigmoid(value) for value in opening]
    return unit([g * a + (1 - g) * math.tanh(o) for g, a, o in zip(gates, x, new, strict=True)])


def alignment(queries: Matrix, context: Matrix, inverse_temperature: float, p: dict) -> dict:
    """One side's part of SHAN: local-local and global-local scores, x + y, attention, and the shares of the queries."""
    logits = [[dot(q, [dot(row, c) for row in p["affinity"]]) for c in context] for q in queries]
    weights = [softmax([inverse_temperature * value for value in row]) for row in logits]
    found = [mix(row, context) for row in weights]
    local = sum(cosine(q, c) for q, c in zip(queries, found, strict=True)) / len(queries)
    fused = []
    for q, c in zip(queries, found, strict=True):
        gates = [sigmoid(value) for value in affine(p["gate"], p["gate_bias"], q + c)]
        fused.append([g * a + (1 - g) * b for g, a, b in zip(gates, q, c, strict=True)])
    shares = softmax([dot(p["share"], f) for f in fused])
    x = unit(mix(shares, fused))
    y = unit(mix(softmax([inverse_temperature * dot(x, c) for c in context]), context))
    return {
        "local": local,
        "global": dot(x, y),
        "whole": [a + b for a, b in zip(x, y, strict=True)],
        "attention": weights,
        "shares": shares,
    }
