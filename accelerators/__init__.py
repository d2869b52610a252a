"""What a model needs and what a GPU gives: architectures, KV cache, memory; GPU requests and their rendering."""
