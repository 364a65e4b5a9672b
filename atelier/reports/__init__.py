"""Reports that people read: evaluation page, model card, study, charts."""
