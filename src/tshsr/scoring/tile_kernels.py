"""Triton kernels of TSHSR's scoring, one program for each pair: what they read twice stays in registers.

Formulas: `models/attention.py`, `models/similarity.py`, `models/context.py`, `models/reasoning.py`, whose modules are
the reference. Values are float32 in registers; factors of matrix products, and what reaches memory, have the precision
of scoring. Blocks are powers of two from 16 on; what lies outside is masked. Sizes of tiles are not part of a
compiled program, so that tiles of any shape share few programs.

Importing this module requires triton; with TRITON_INTERPRET=1 in the environment the kernels run on a CPU.
"""

# Annotations are values here: Triton's interpreter compares them with tl.constexpr.
import triton
import triton.language as tl
from triton.errors import TritonError as TritonError


@triton.jit
def product(left, right, widen: tl.constexpr, precision: tl.constexpr):
    """Matrix product with sums in float32; `widen`: for the interpreter, which cannot multiply bfloat16."""
    if widen:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision=precision)


@triton.jit
def unit_sums(weights, gram, precision: tl.constexpr):
    """Rows w of weights as w / max( sqrt( w^T G w ), 1e-12 ), in float32."""
    squared = tl.sum(tl.dot(weights, gram, input_precision=precision) * weights, axis=1)
    return weights / tl.sqrt(tl.maximum(squared, 1e-24))[:, None]


@triton.jit
def softmax_rows(logits, real):
    """Softmax over the columns marked in `real`; zeros in a row without any."""
    shifted = logits - tl.max(tl.where(real, logits, -3e38), axis=1)[:, None]
    powers = tl.where(real, tl.exp(tl.where(real, shifted, 0.0)), 0.0)
    return powers / tl.maximum(tl.sum(powers, axis=1), 1e-30)[:, None]


@triton.jit
def load_block(start, rows, columns, row_stride, row_count, column_count):
    """A block of a matrix with adjacent columns, zero outside."""
    inside = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    return tl.load(start + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_mask(mask, items, count):
    """Which items are real."""
    return tl.load(mask + items, mask=items < count, other=0) != 0


@triton.jit
def load_cosines(start, rows, items, row_stride, item_stride, row_count, item_count):
    """The products q·c of a pair in float32, zero outside."""
    inside = (rows < row_count)[:, None] & (items < item_count)[None, :]
    places = rows[:, None] * row_stride + items[None, :] * item_stride
    return tl.load(start + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def attention_weights(cosines, real_query, real_item, inverse_temperature):
    """Attention over the context of products normalised over the queries (SCAN, Lee et al. 2018)."""
    leaky = tl.where(real_query[:, None], tl.where(cosines > 0, cosines, 0.1 * cosines), 0.0)
    norm = tl.maximum(tl.sqrt(tl.sum(leaky * leaky, axis=0)), 1e-12)
    return softmax_rows(leaky * (inverse_temperature / norm)[None, :], real_item[None, :])


@triton.jit
def agreements(expected, there, rows, items, row_count, item_count):
    """Products of the four numbers of each query's place with those of each context item's."""
    found = tl.zeros((rows.shape[0], items.shape[0]), tl.float32)
    for axis in tl.static_range(4):
        left = tl.load(expected + rows * 4 + axis, mask=rows < row_count, other=0.0).to(tl.float32)
        right = tl.load(there + items * 4 + axis, mask=items < item_count, other=0.0).to(tl.float32)
        found += left[:, None] * right[None, :]
    return found


@triton.jit
def add_comparison(
    vectors, queries, attended, columns, dims, weight, product_weight, compared: tl.constexpr, width: tl.constexpr,
    widen: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Add W (q - a)^2 and V (q * a), over some dimensions of the comparison space, to the vectors."""
    inside = (dims < compared)[:, None] & (columns < width)[None, :]
    places = columns[None, :] * compared + dims[:, None]
    difference = queries.to(tl.float32) - attended
    factor = tl.load(weight + places, mask=inside, other=0.0)
    vectors += product((difference * difference).to(factor.dtype), factor, widen, precision)
    if product_weight is not None:
        factor = tl.load(product_weight + places, mask=inside, other=0.0)
        vectors += product((queries.to(tl.float32) * attended).to(factor.dtype), factor, widen, precision)
    return vectors


@triton.jit
def constant_part(columns, cosine, bias, cosine_weight, width: tl.constexpr):
    """The vectors b + u (q·a)."""
    vectors = tl.load(bias + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :] + 0.0 * cosine[:, None]
    if cosine_weight is not None:
        factor = tl.load(cosine_weight + columns, mask=columns < width, other=0.0).to(tl.float32)
        vectors += cosine[:, None] * factor[None, :]
    return vectors


@triton.jit
def unit_rows(vectors):
    """Rows of length one."""
    return vectors / tl.maximum(tl.sqrt(tl.sum(vectors * vectors, axis=1)), 1e-12)[:, None]


@triton.jit
def read_out(nodes, real, columns, opening, opening_bias, value, width: tl.constexpr):
    """Sum of beta_p (w·S_p): the term of a level."""
    inside = columns < width
    opening_weight = tl.load(opening + columns, mask=inside, other=0.0).to(tl.float32)
    value_weight = tl.load(value + columns, mask=inside, other=0.0).to(tl.float32)
    logits = tl.sum(nodes * opening_weight[None, :], axis=1) + tl.load(opening_bias).to(tl.float32)
    beta = tl.where(real, 1.0 / (1.0 + tl.exp(-logits)), 0.0)
    values = tl.sum(nodes * value_weight[None, :], axis=1)
    return tl.sum(beta * values, axis=0) / tl.maximum(tl.sum(beta, axis=0), 1.2e-38)


@triton.jit
def pool(
    nodes, real, rows, node_count, columns, pair, seeds, assignment, pooled, seed_count: tl.constexpr,
    width: tl.constexpr, seeds_block: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Store A = softmax over nodes( Q S^T ) and A S of a pair."""
    slots = tl.arange(0, seeds_block)
    inside = (columns < width)[:, None] & (slots < seed_count)[None, :]
    queries = tl.load(seeds + slots[None, :] * width + columns[:, None], mask=inside, other=0.0)
    narrow = nodes.to(queries.dtype)
    logits = product(narrow, queries, widen, precision)
    weights = tl.trans(softmax_rows(tl.trans(logits), real[None, :])).to(queries.dtype)
    kept = (rows < node_count)[:, None] & (slots < seed_count)[None, :]
    places = (pair * seed_count + slots[None, :]) * node_count + rows[:, None]
    tl.store(assignment + places, weights, mask=kept)
    context = product(tl.trans(weights), narrow, widen, precision)
    kept = (slots < seed_count)[:, None] & (columns < width)[None, :]
    places = (pair * seed_count + slots[:, None]) * width + columns[None, :]
    tl.store(pooled + places, context.to(queries.dtype), mask=kept)


@triton.jit(
    do_not_specialize=[
        "query_rows", "query_count", "context_count", "similarity_context_row", "similarity_query_row",
        "similarity_query", "similarity_context", "gram_row", "gram_item", "query_mask_row",
        "context_mask_row", "query_place_row", "context_place_row",
    ],
    do_not_specialize_on_alignment=["similarity", "gram", "query_mask", "context_mask"],
)  # fmt: skip
def similarity_vectors(
    similarity, queries, context, gram, query_mask, context_mask, query_places, context_places, weight,
    product_weight, bias, cosine_weight, place_weight, opening, opening_bias, value, seeds, vectors, terms,
    assignment, pooled, query_rows, query_count, context_count, similarity_context_row, similarity_query_row,
    similarity_query, similarity_context, query_row, context_row, gram_row, gram_item, query_mask_row,
    context_mask_row, query_place_row, context_place_row, inverse_temperature, compared: tl.constexpr,
    width: tl.constexpr, seed_count: tl.constexpr, queries_block: tl.constexpr, context_block: tl.constexpr,
    compared_block: tl.constexpr, width_block: tl.constexpr, seeds_block: tl.constexpr, widen: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Similarity vectors of a pair, their read-out, and the context nodes pooled from them.

    Attention of the queries over the context, its scaling to unit sums, attended vectors, squared differences,
    products and vectors stay in registers. With `seeds` S, A and A S are stored, without only the term of level 0.
    """
    pair = tl.program_id(0).to(tl.int64)
    a, b = pair // query_rows, pair % query_rows
    rows, items = tl.arange(0, queries_block), tl.arange(0, context_block)
    columns = tl.arange(0, width_block)
    real_query = load_mask(query_mask + b * query_mask_row, rows, query_count)
    real_item = load_mask(context_mask + a * context_mask_row, items, context_count)
    start = similarity + a * similarity_context_row + b * similarity_query_row
    cosines = load_cosines(start, rows, items, similarity_query, similarity_context, query_count, context_count)
    attention = attention_weights(cosines, real_query, real_item, inverse_temperature)
    grams = load_block(gram + a * gram_row, items, items, gram_item, context_count, context_count).to(tl.float32)
    scaled = unit_sums(attention, grams, precision)
    found = constant_part(columns, tl.sum(scaled * cosines, axis=1), bias, cosine_weight, width)
    if place_weight is not None:
        expected, there = query_places + b * query_place_row, context_places + a * context_place_row
        agreement = agreements(expected, there, rows, items, query_count, context_count)
        factor = tl.load(place_weight + columns, mask=columns < width, other=0.0).to(tl.float32)
        found += tl.sum(attention * agreement, axis=1)[:, None] * factor[None, :]
    narrow = scaled.to(context.dtype.element_ty)
    for first in range(0, compared, compared_block):
        dims = first + tl.arange(0, compared_block)
        q = load_block(queries + b * query_row, rows, dims, compared, query_count, compared)
        c = load_block(context + a * context_row, items, dims, compared, context_count, compared)
        attended = product(narrow, c, widen, precision)
        found = add_comparison(
            found, q, attended, columns, dims, weight, product_weight, compared, width, widen, precision
        )
    nodes = unit_rows(found)
    tl.store(terms + pair, read_out(nodes, real_query, columns, opening, opening_bias, value, width))
    if seeds is not None:
        kept = (rows < query_count)[:, None] & (columns < width)[None, :]
        places = (pair * query_count + rows[:, None]) * width + columns[None, :]
        tl.store(vectors + places, nodes.to(vectors.dtype.element_ty), mask=kept)
        pool(
            nodes, real_query, rows, query_count, columns, pair, seeds, assignment, pooled,
            seed_count, width, seeds_block, widen, precision,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=[
        "query_rows", "query_count", "context_count", "similarity_context_row", "similarity_query_row",
        "similarity_query", "similarity_context", "gram_row", "gram_item", "query_gram_row",
        "query_gram_item", "context_mask_row",
    ],
    do_not_specialize_on_alignment=["similarity", "query_gram", "gram", "context_mask"],
)  # fmt: skip
def context_vectors(
    similarity, shares, queries, context, query_gram, gram, context_mask, weight, product_weight, bias,
    cosine_weight, vectors, query_rows, query_count, context_count, similarity_context_row, similarity_query_row,
    similarity_query, similarity_context, query_row, context_row, query_gram_row, query_gram_item, gram_row,
    gram_item, context_mask_row, inverse_temperature, compared: tl.constexpr, width: tl.constexpr,
    seed_count: tl.constexpr, queries_block: tl.constexpr, context_block: tl.constexpr,
    compared_block: tl.constexpr, width_block: tl.constexpr, seeds_block: tl.constexpr, widen: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """s(q_s, a_s) of the context nodes of a pair, each a weighted sum of queries that attends to the context."""
    pair = tl.program_id(0).to(tl.int64)
    a, b = pair // query_rows, pair % query_rows
    slots, rows = tl.arange(0, seeds_block), tl.arange(0, queries_block)
    items, columns = tl.arange(0, context_block), tl.arange(0, width_block)
    real_item = load_mask(context_mask + a * context_mask_row, items, context_count)
    own = load_block(shares + pair * seed_count * query_count, slots, rows, query_count, seed_count, query_count)
    grams = load_block(query_gram + b * query_gram_row, rows, rows, query_gram_item, query_count, query_count)
    own = unit_sums(own.to(tl.float32), grams.to(tl.float32), precision)
    start = similarity + a * similarity_context_row + b * similarity_query_row
    cosines = load_cosines(start, rows, items, similarity_query, similarity_context, query_count, context_count)
    cosines = tl.dot(own, cosines, input_precision=precision)
    grams = load_block(gram + a * gram_row, items, items, gram_item, context_count, context_count)
    attention = softmax_rows(inverse_temperature * cosines, real_item[None, :])
    scaled = unit_sums(attention, grams.to(tl.float32), precision)
    found = constant_part(columns, tl.sum(scaled * cosines, axis=1), bias, cosine_weight, width)
    narrow, narrow_own = scaled.to(context.dtype.element_ty), own.to(context.dtype.element_ty)
    for first in range(0, compared, compared_block):
        dims = first + tl.arange(0, compared_block)
        q = load_block(queries + b * query_row, rows, dims, compared, query_count, compared)
        c = load_block(context + a * context_row, items, dims, compared, context_count, compared)
        summed, attended = product(narrow_own, q, widen, precision), product(narrow, c, widen, precision)
        found = add_comparison(
            found, summed, attended, columns, dims, weight, product_weight, compared, width, widen, precision
        )
    kept = (slots < seed_count)[:, None] & (columns < width)[None, :]
    places = (pair * seed_count + slots[:, None]) * width + columns[None, :]
    tl.store(vectors + places, unit_rows(found).to(vectors.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=["query_rows", "node_count", "mask_row"], do_not_specialize_on_alignment=["mask"])
def exchange(
    relations, nodes, assignment, mask, messages, query_rows, node_count, mask_row, local: tl.constexpr,
    through_context: tl.constexpr, width: tl.constexpr, seed_count: tl.constexpr, nodes_block: tl.constexpr,
    width_block: tl.constexpr, seeds_block: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """(p + q A) S of a pair: what its context nodes receive from the local nodes S and from the context nodes A S."""
    pair = tl.program_id(0).to(tl.int64)
    slots, rows = tl.arange(0, seeds_block), tl.arange(0, nodes_block)
    columns = tl.arange(0, width_block)
    real = rows < node_count
    if mask is not None:
        real = load_mask(mask + (pair % query_rows) * mask_row, rows, node_count)
    y = load_block(relations + pair * seed_count * width, slots, columns, width, seed_count, width)
    s = load_block(nodes + pair * node_count * width, rows, columns, width, node_count, width)
    a = load_block(assignment + pair * seed_count * node_count, slots, rows, node_count, seed_count, node_count)
    logits = product(y, tl.trans(s), widen, precision)
    weights = softmax_rows(logits, real[None, :])
    if through_context:
        real_slot = slots < seed_count
        to_context = product(logits.to(a.dtype), tl.trans(a), widen, precision)
        if local:  # one softmax over both
            lowest = tl.max(tl.where(real[None, :], logits, -3e38), axis=1)
            lowest = tl.maximum(lowest, tl.max(tl.where(real_slot[None, :], to_context, -3e38), axis=1))[:, None]
            direct = tl.where(real[None, :], tl.exp(tl.where(real[None, :], logits - lowest, 0.0)), 0.0)
            through = tl.exp(tl.where(real_slot[None, :], to_context - lowest, 0.0))
            through = tl.where(real_slot[None, :], through, 0.0)
            total = tl.sum(direct, axis=1) + tl.sum(through, axis=1)
            weights = direct + product(through.to(a.dtype), a, widen, precision)
            weights = weights / total[:, None]
        else:
            weights = product(softmax_rows(to_context, real_slot[None, :]).to(a.dtype), a, widen, precision)
    message = product(weights.to(s.dtype), s, widen, precision)
    kept = (slots < seed_count)[:, None] & (columns < width)[None, :]
    places = (pair * seed_count + slots[:, None]) * width + columns[None, :]
    tl.store(messages + places, message.to(s.dtype), mask=kept)


@triton.jit
def update(
    context, messages, gates, opening, opening_bias, value, seeds, vectors, terms, assignment, pooled,
    width: tl.constexpr, node_count: tl.constexpr, seed_count: tl.constexpr, nodes_block: tl.constexpr,
    width_block: tl.constexpr, seeds_block: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """l2( C + sigmoid(g) * M ) of a pair, the read-out of these nodes, and the context nodes of the next level.

    `gates` are g, None without; with `seeds` the nodes, A and A S of the next level are stored.
    """
    pair = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, nodes_block), tl.arange(0, width_block)
    start = pair * node_count * width
    message = load_block(messages + start, rows, columns, width, node_count, width).to(tl.float32)
    if gates is not None:
        gate = load_block(gates + start, rows, columns, width, node_count, width).to(tl.float32)
        message = message / (1.0 + tl.exp(-gate))
    c = load_block(context + start, rows, columns, width, node_count, width)
    nodes = unit_rows(c.to(tl.float32) + message)
    real = rows < node_count
    tl.store(terms + pair, read_out(nodes, real, columns, opening, opening_bias, value, width))
    if seeds is not None:
        kept = real[:, None] & (columns < width)[None, :]
        tl.store(vectors + start + rows[:, None] * width + columns[None, :], nodes.to(c.dtype), mask=kept)
        pool(
            nodes, real, rows, node_count, columns, pair, seeds, assignment, pooled,
            seed_count, width, seeds_block, widen, precision,
        )  # fmt: skip
