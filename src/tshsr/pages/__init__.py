"""HTML pages as single files that need no network: explanations and reports."""
