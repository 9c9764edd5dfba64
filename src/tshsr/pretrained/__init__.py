"""Networks trained by others: loading them, text encoders, and a store of token states."""
