"""Cloud Functions: `functions/` served by the real framework, and what `oncetask.functions` makes of requests."""
