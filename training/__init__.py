"""From data to a judged model: data sets, search, fine-tuning, evaluation."""
