"""Documents drawn from recorded figures: docs/performance.md, quality.md, reliability.md, the model card."""
