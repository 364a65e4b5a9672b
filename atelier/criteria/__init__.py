"""Criteria and data: tree, judgements, captions, pairs, data split."""
