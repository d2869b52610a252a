"""Facts about well-known models: the fields of their config.json that memory depends on, each with its source."""
