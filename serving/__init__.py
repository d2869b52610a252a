"""From a model to an answer: the model cache, endpoints, probes."""
