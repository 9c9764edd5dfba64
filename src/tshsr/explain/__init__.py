"""Which word met which region, and whether explanations hold: attribution, deletion curves, probes."""
