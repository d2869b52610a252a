"""The Feast repository: documents as features, the training frame, retrieval."""
