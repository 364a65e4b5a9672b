"""A user study: ``python -m tasks survey make|invite|serve|analyse``; see docs/survey.md."""
