"""The one place that talks to a Kubernetes API server; everything that renders manifests stays pure."""

from goldpath.core.kubernetes.cluster import Cluster
from goldpath.core.kubernetes.errors import ClusterError
from goldpath.core.kubernetes.names import label_value, object_name
from goldpath.core.kubernetes.refs import Ref
from goldpath.core.kubernetes.retry import Retry

__all__ = ["Cluster", "ClusterError", "Ref", "Retry", "label_value", "object_name"]
