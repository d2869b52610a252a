"""Trainings and searches as Kubernetes objects: pure functions from specs to manifests, and from live objects back."""
