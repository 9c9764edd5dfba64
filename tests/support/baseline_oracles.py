"""The equations of the baselines as slow plain loops over Python floats (see `oracles.py`)."""

import math

from tests.support.oracles import Matrix, Vector, affine, dot, mix, sigmoid, softmax, unit


def leaky(x: float) -> float:
    return x if x > 0 else 0.1 * x


def over_queries(raw: Matrix, how: str) -> Matrix:
    """SCAN's first normalisation: a leaky ReLU, and unit length or a softmax down each column."""
    rows = [[leaky(x) for x in row] if how.startswith("clipped") else list(row) for row in raw]
    columns = [list(column) for column in zip(*rows, strict=True)]
    if how.endswith("l2norm"):
        columns = [unit(column) for column in columns]
    if how == "softmax":
        columns = [softmax(column) for column in columns]
    return [list(row) for row in zip(*columns, strict=True)]


def scan_attention(queries: Matrix, context: Matrix, how: str, inverse_temperature: float) -> Matrix:
    raw = [[dot(q, c) for c in context] for q in queries]
    return [softmax([inverse_temperature * x for x in row]) for row in over_queries(raw, how)]


def scan_cosines(queries: Matrix, context: Matrix, how: str, inverse_temperature: float) -> Vector:
    """Cosine of each query with its attended context, materialised."""
    weights = scan_attention(queries, context, how, inverse_temperature)
    attended = [mix(row, context) for row in weights]
    return [dot(q, a) / (math.sqrt(dot(q, q)) * math.sqrt(dot(a, a))) for q, a in zip(queries, attended, strict=True)]


def aggregate(cosines: Vector, how: str, factor: float) -> float:
    if how == "max":
        return max(cosines)
    if how == "logsumexp":
        return math.log(sum(math.exp(factor * x) for x in cosines)) / factor
    return sum(cosines) / (len(cosines) if how == "mean" else 1)


def graph_step(nodes: Matrix, p: dict) -> tuple[Matrix, Matrix]:
    """One step of SGR with its two matrices and every node: new nodes, edges."""
    queries = [affine(p["query"], p["query_bias"], node) for node in nodes]
    keys = [[dot(row, node) for row in p["key"]] for node in nodes]
    edges = [softmax([dot(q, k) for k in keys]) for q in queries]
    mixed = [mix(row, nodes) for row in edges]
    return [[max(0.0, x) for x in affine(p["update"], p["update_bias"], row)] for row in mixed], edges


def graph(nodes: Matrix, steps: list[dict]) -> tuple[Vector, Vector]:
    """SGR: the first node after all steps, and the weight of each input node in it."""
    came_from = [[float(i == j) for j in range(len(nodes))] for i in range(len(nodes))]
    for step in steps:
        nodes, edges = graph_step(nodes, step)
        came_from = [mix(row, came_from) for row in edges]
    return nodes[0], came_from[0]


def normalise(x: float, norm: tuple[float, float, float, float]) -> float:
    """Batch normalisation by (mean, variance, weight, bias)."""
    mean, variance, weight, bias = norm
    return weight * (x - mean) / math.sqrt(variance + 1e-5) + bias


def filtration(
    nodes: Matrix, opening: Vector, bias: float, norm: tuple[float, float, float, float]
) -> tuple[Vector, Vector]:
    """SAF: the filtered sum, and the weights of the nodes."""
    gates = [sigmoid(normalise(dot(opening, node) + bias, norm)) for node in nodes]
    beta = [x / sum(gates) for x in gates]
    return unit(mix(beta, nodes)), beta


def mean(rows: Matrix) -> Vector:
    return mix([1 / len(rows)] * len(rows), rows)


def self_attention_pool(items: Matrix, p: dict) -> Vector:
    """SGRAF's global vector; `item_norms` holds one batch normalisation per item, `whole_norms` one per channel."""
    whole = affine(p["whole"], p["whole_bias"], mean(items))
    if p["whole_norms"]:
        whole = [normalise(x, norm) for x, norm in zip(whole, p["whole_norms"], strict=True)]
    logits = []
    for place, x in enumerate(items):
        item = affine(p["item"], p["item_bias"], x)
        if p["item_norms"]:
            item = [normalise(value, p["item_norms"][place]) for value in item]
        logits.append(dot(p["weight"], [math.tanh(a) * math.tanh(b) for a, b in zip(item, whole, strict=True)]))
    return unit(mix(softmax(logits), items))


def position_code(place: int, width: int) -> Vector:
    code = []
    for channel in range(0, width, 2):
        angle = place / 10000 ** (channel / width)
        code += [math.sin(angle), math.cos(angle)]
    return code


def gru(inputs: Matrix, p: dict, ending: str) -> Matrix:
    """A gated recurrent unit in torch's order of gates (reset, update, new), from state 0."""
    width = len(p[f"weight_hh_l0{ending}"][0])
    state, states = [0.0] * width, []
    for x in inputs:
        given = affine(p[f"weight_ih_l0{ending}"], p[f"bias_ih_l0{ending}"], x)
        held = affine(p[f"weight_hh_l0{ending}"], p[f"bias_hh_l0{ending}"], state)
        reset = [sigmoid(a + b) for a, b in zip(given[:width], held[:width], strict=True)]
        update = [sigmoid(a + b) for a, b in zip(given[width : 2 * width], held[width : 2 * width], strict=True)]
        new = [math.tanh(a + r * b) for a, r, b in zip(given[2 * width :], reset, held[2 * width :], strict=True)]
        state = [(1 - z) * n + z * h for z, n, h in zip(update, new, state, strict=True)]
        states.append(state)
    return states


def generalised_pool(items: Matrix, p: dict, score: Vector) -> tuple[Vector, Vector]:
    """VSE-infinity's pooling: the unit vector, and the weight of each rank."""
    width = len(p["weight_ih_l0"][0])
    codes = [position_code(place, width) for place in range(len(items))]
    forward, backward = gru(codes, p, ""), gru(codes[::-1], p, "_reverse")[::-1]
    logits = [
        dot(score, [(a + b) / 2 for a, b in zip(ahead, back, strict=True)])
        for ahead, back in zip(forward, backward, strict=True)
    ]
    weights = softmax([x / 0.1 for x in logits])
    ranked = [sorted((x[d] for x in items), reverse=True) for d in range(len(items[0]))]
    return unit([dot(weights, channel) for channel in ranked]), weights
