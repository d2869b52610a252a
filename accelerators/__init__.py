"""GPU requests: one short string, parsed, checked and rendered to what each consumer on a cluster needs."""
