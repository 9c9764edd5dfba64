"""Reranking of candidates that another search has found.

Modules: `candidates` (pictures in any form -> encodings), `reranker` (the public class). Adapters to the interfaces of
other libraries, each requiring its library: `lancedb`, `rerankers`, `cross_encoder`, `langchain`.
"""
