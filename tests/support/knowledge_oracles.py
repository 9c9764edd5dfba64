"""The equations of concept graphs and of concepts in networks as slow plain loops over Python floats."""

import math

from tests.support.oracles import Matrix, Vector, affine, dot, mix, sigmoid, softmax, unit


def counts(captions: list[set[str]], words: list[str]) -> list[list[int]]:
    """Captions with both words; on the diagonal with one."""
    return [[sum(1 for caption in captions if a in caption and b in caption) for b in words] for a in words]


def edges_of_captions(captions: list[set[str]], words: list[str]) -> list[list[int]]:
    both = counts(captions, words)
    reached = [
        [i != j and 5.0 ** (both[i][j] / max(1, both[i][i]) - 0.02) - 5.0**-0.02 >= 0.3 for j in range(len(words))]
        for i in range(len(words))
    ]
    return [[int(reached[i][j] or reached[j][i]) for j in range(len(words))] for i in range(len(words))]


def normalised(edges: Matrix) -> Matrix:
    loops = [[value + (i == j) for j, value in enumerate(row)] for i, row in enumerate(edges)]
    degree = [sum(row) for row in loops]
    return [[value / math.sqrt(degree[i] * degree[j]) for j, value in enumerate(row)] for i, row in enumerate(loops)]


def times(matrix: Matrix, other: Matrix) -> Matrix:
    return [mix(row, other) for row in matrix]


def concept_vectors(adjacency: list[Matrix], vectors: Matrix, first: list[Matrix], second: list[Matrix]) -> Matrix:
    """Two layers of graph convolution."""

    def layer(rows: Matrix, weights: list[Matrix]) -> Matrix:
        parts = [times(edges, times(rows, weight)) for edges, weight in zip(adjacency, weights, strict=True)]
        return [[sum(values) for values in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]

    hidden = [[x if x > 0 else 0.2 * x for x in row] for row in layer(vectors, first)]
    return [unit(row) for row in layer(hidden, second)]


def concept_logits(whole: Vector, vectors: Matrix, p: dict) -> Vector:
    query = [dot(row, whole) for row in p["relation"]]
    return [p["lambda"] * dot(query, vector) for vector in vectors]


def largest(values: Vector, count: int) -> list[int]:
    return sorted(range(len(values)), key=lambda k: -values[k])[:count]


def offset_gate(first: Vector, second: Vector, p: dict) -> float:
    """Gate of two boxes x1, y1, x2, y2."""
    places = [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (first, second)]
    (a, b), sides = places, [[math.log(max(side, 0.01)) for side in place[2:]] for place in places]
    inputs = [b[0] - a[0], b[1] - a[1], sides[1][0] - sides[0][0], sides[1][1] - sides[0][1]]
    hidden = [math.tanh(x) for x in affine(p["gate_1"]["weight"], p["gate_1"]["bias"], inputs)]
    return sigmoid(affine(p["gate_2"]["weight"], p["gate_2"]["bias"], hidden)[0])


def filter_of(concept: Vector, whole: Vector, support: Vector, p: dict) -> float:
    hidden = [
        math.tanh(a + dot(b, whole) + dot(c, support))
        for a, b, c in zip(
            affine(p["concept"]["weight"], p["concept"]["bias"], concept), p["whole"], p["support"], strict=True
        )
    ]
    return sigmoid(affine(p["score"]["weight"], p["score"]["bias"], hidden)[0])


def progressive(items: Matrix, whole: Vector, boxes: Matrix | None, vectors: Matrix, edges: Matrix, p: dict) -> Vector:
    """u of one image (with boxes) or caption (without)."""
    for _ in range(p["steps"]):
        logits = concept_logits(whole, vectors, p)
        active = largest(logits, p["active"])
        alpha = softmax([logits[k] for k in active])
        cosines = [[dot(vectors[k], item) for item in items] for k in active]
        where = [softmax([p["lambda"] * cosine for cosine in row]) for row in cosines]
        pooled = [0.0] * len(vectors[0])
        for a, k in enumerate(active):
            weights = []
            for b, other in enumerate(active):
                together = 1.0
                if boxes is not None:
                    together = sum(
                        where[a][r] * offset_gate(boxes[r], boxes[s], p) * where[b][s]
                        for r in range(len(items))
                        for s in range(len(items))
                    )
                weights.append(edges[k][other] * together)
            near = mix([weight / sum(weights) for weight in weights], [vectors[other] for other in active])
            enhanced = unit([x + y for x, y in zip(vectors[k], near, strict=True)])
            support = [max(cosines[a]), 0.0, 0.0, 0.0, 0.0]
            if boxes is not None:
                places = [[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes]
                support = [max(cosines[a]), *mix(where[a], places)]
            share = alpha[a] * filter_of(enhanced, whole, support, p)
            pooled = [x + share * y for x, y in zip(pooled, enhanced, strict=True)]
        whole = unit([x + dot(row, pooled) for x, row in zip(whole, p["update"], strict=True)])
    return whole


def enhanced_concept(k: int, importance: Vector, vectors: Matrix, edges: Matrix) -> Vector:
    """h_k of CSRC."""
    weights = [edge * p for edge, p in zip(edges[k], importance, strict=True)]
    near = mix([weight / sum(weights) for weight in weights], vectors)
    return unit([x + y for x, y in zip(vectors[k], near, strict=True)])


def consistent(whole: Vector, vectors: Matrix, edges: Matrix, p: dict) -> Vector:
    importance = softmax(concept_logits(whole, vectors, p))
    active = largest(importance, p["active"])
    total = sum(importance[k] for k in active)
    pooled = mix(
        [importance[k] / total for k in active], [enhanced_concept(k, importance, vectors, edges) for k in active]
    )
    return unit([x + dot(row, pooled) for x, row in zip(whole, p["update"], strict=True)])


def inconsistency(image: Vector, caption: Vector, vectors: Matrix, edges: Matrix, p: dict) -> float:
    """L_sem + L_rel of one pair, from v and t."""
    of_image, of_caption = (softmax(concept_logits(whole, vectors, p)) for whole in (image, caption))
    semantic = sum((a - b) ** 2 for a, b in zip(of_image, of_caption, strict=True))
    both = largest([a * b for a, b in zip(of_image, of_caption, strict=True)], p["active"])
    first, second = (
        [enhanced_concept(k, importance, vectors, edges) for k in both] for importance in (of_image, of_caption)
    )
    pairs = [(k, other) for k in range(len(both)) for other in range(len(both))]
    return semantic + sum((dot(first[k], first[o]) - dot(second[k], second[o])) ** 2 for k, o in pairs) / len(pairs)


def consensus(whole: Vector, vectors: Matrix, p: dict) -> Vector:
    return unit(mix(softmax(concept_logits(whole, vectors, p)), vectors))


def kl(first: Vector, second: Vector) -> float:
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))
