"""What goldpath uses of a cluster, in one table: kinds, versions, and what its steps do with them.

`goldpath doctor` asks for it, `deploy/base` grants it, and a test holds both and what our code renders against it:
whoever renders a new kind adds its row here and its verbs to the Role.
"""

from __future__ import annotations

from typing import NamedTuple

NAMESPACE = "goldpath"
SERVICE_ACCOUNT = "goldpath-pipeline"
"""The names that `deploy/base` has."""
STORAGE = "GOLDPATH_STORAGE"
"""The key in the ConfigMap of settings that no step can do without."""
KATIB_NAMESPACE = "kubeflow"
KATIB_CONFIG = "katib-config"
"""The ConfigMap with Katib's configuration, there."""

POD_SECURITY = "pod-security.kubernetes.io/enforce"
"""The label of a namespace that says which pods it takes."""

READ = ("get", "list", "watch")
SHARED = (*READ, "create", "delete")
"""What is made, watched and removed, never changed."""
OWN = KEEP = (*SHARED, "update")
"""What belongs to one step, whose retry adopts it and becomes its owner; what outlives a run and changes in place."""


def apply(namespace: str) -> str:
    """What brings a namespace, the service account and its permissions."""
    if namespace == NAMESPACE:
        return "kubectl apply -k deploy/overlays/device-plugin (or .../dra; without GPUs deploy/base)"
    return (
        f"kubectl apply -k an overlay with `namespace: {namespace}` "
        "(docs/from-laptop-to-cluster.md, The namespace, has one to copy)"
    )


class Part(NamedTuple):
    """One thing to install."""

    name: str
    remedy: str
    required: bool = True
    """Whether the golden path needs it, on the way that it takes by default."""


class Use(NamedTuple):
    """One kind of object, and what a step does with it."""

    api: str
    """`apiVersion`, such as ``kubeflow.org/v1beta1``."""
    kind: str
    plural: str
    verbs: tuple[str, ...]
    part: Part

    @property
    def group(self) -> str:
        """The API group; empty for Kubernetes' oldest kinds."""
        return self.api.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version that our manifests are written in."""
        return self.api.rpartition("/")[2]


KUBERNETES = Part("Kubernetes", "")
TRAINER = Part(
    "Kubeflow Trainer 2.3",
    "kubectl apply --server-side -k 'https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=v2.3.0'",
)
OPERATOR = Part(
    "training operator 1.9",
    "Only where the Trainer cannot be installed: "
    "kubectl apply --server-side -k "
    "'https://github.com/kubeflow/trainer.git/manifests/overlays/standalone?ref=v1.9.4'",
    required=False,
)
KATIB = Part(
    "Katib 0.19",
    "kubectl apply -k 'https://github.com/kubeflow/katib.git/manifests/v1beta1/installs/katib-standalone?ref=v0.19.0'",
)
KSERVE = Part(
    "KServe 0.20",
    "helm install kserve-crd oci://ghcr.io/kserve/charts/kserve-crd --version v0.20.0, "
    "then kserve-resources with --set kserve.controller.deploymentMode=Standard",
)
MODEL_CACHE = Part(
    "KServe's model cache",
    "helm install kserve-localmodel-crd oci://ghcr.io/kserve/charts/kserve-localmodel-crd --version v0.20.0, "
    "then kserve-localmodel-resources",
)
LLM = Part(
    "KServe's LLMInferenceService",
    "helm install kserve-llmisvc-crd oci://ghcr.io/kserve/charts/kserve-llmisvc-crd --version v0.20.0, "
    "then kserve-llmisvc-resources; without it models are served by InferenceServices",
    required=False,
)
KEDA = Part(
    "KEDA",
    "helm install keda keda --repo https://kedacore.github.io/charts --namespace keda --create-namespace; "
    "without it the number of replicas stays as it is",
    required=False,
)
DRA = Part(
    "dynamic resource allocation",
    "Kubernetes 1.34 or later and NVIDIA's DRA driver (deploy/gpus/README.md); the device plugin needs none of it",
    required=False,
)

NAMESPACED = (
    Use("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs", OWN, TRAINER),
    Use("trainer.kubeflow.org/v1alpha1", "TrainingRuntime", "trainingruntimes", OWN, TRAINER),
    Use("kubeflow.org/v1", "PyTorchJob", "pytorchjobs", OWN, OPERATOR),
    Use("kubeflow.org/v1beta1", "Experiment", "experiments", OWN, KATIB),
    Use("kubeflow.org/v1beta1", "Trial", "trials", ("list",), KATIB),
    Use(
        "serving.kserve.io/v1alpha1",
        "LocalModelNamespaceCache",
        "localmodelnamespacecaches",
        SHARED,
        MODEL_CACHE,
    ),
    Use("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", KEEP, KSERVE),
    Use("serving.kserve.io/v1alpha2", "LLMInferenceService", "llminferenceservices", KEEP, LLM),
    Use("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", KEEP, KEDA),
    Use("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates", OWN, DRA),
    # Whoever shares a claim may still use it: it is adopted, and no step removes it.
    Use("resource.k8s.io/v1", "ResourceClaim", "resourceclaims", (*READ, "create"), DRA),
    # What the Trainer makes of a TrainJob: a job without pods says why in these.
    Use("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets", ("list",), TRAINER),
    Use("batch/v1", "Job", "jobs", ("list",), KUBERNETES),
    # Settings of LMCache, called after their service: a Role has no patterns for names, so it is all or none.
    Use("v1", "ConfigMap", "configmaps", KEEP, KUBERNETES),
    # Its own namespace, for the Pod Security that it enforces.
    Use("v1", "Namespace", "namespaces", ("get",), KUBERNETES),
    Use("v1", "Pod", "pods", ("get", "list"), KUBERNETES),
    Use("v1", "Pod", "pods/log", ("get",), KUBERNETES),
    Use("v1", "Event", "events", ("list",), KUBERNETES),
)
"""In the namespace of the pipelines: a Role."""

CLUSTER_WIDE = (
    Use(
        "trainer.kubeflow.org/v1alpha1",
        "ClusterTrainingRuntime",
        "clustertrainingruntimes",
        ("get",),
        TRAINER,
    ),
    Use("serving.kserve.io/v1alpha1", "LocalModelCache", "localmodelcaches", READ, MODEL_CACHE),
    Use("serving.kserve.io/v1alpha1", "LocalModelNodeGroup", "localmodelnodegroups", ("list",), MODEL_CACHE),
    Use("resource.k8s.io/v1", "DeviceClass", "deviceclasses", ("list",), DRA),
    Use("resource.k8s.io/v1", "ResourceSlice", "resourceslices", ("list",), DRA),
    Use("v1", "Node", "nodes", ("list",), KUBERNETES),
)
"""Of the whole cluster: a ClusterRole that only reads."""


def part_of(api: str, kind: str) -> Part | None:
    """What to install for a kind: by the kind itself, else by its version, else by its group; None for a stranger."""
    known = NAMESPACED + CLUSTER_WIDE
    group = api.rpartition("/")[0]
    ways = (
        (use for use in known if (use.api, use.kind) == (api, kind)),
        (use for use in known if use.api == api),
        (use for use in known if group and use.group == group),
    )
    return next((use.part for way in ways for use in way), None)
