"""HTML pages as single files without network access: explanations and reports."""
