"""The kinds that the server of the tests serves: version, kind, plural, whose it is, and if it has a status."""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
v1                             Namespace                 namespaces                   cluster status
v1                             Node                      nodes                        cluster status
v1                             Pod                       pods                         ns status
v1                             ConfigMap                 configmaps                   ns
v1                             Secret                    secrets                      ns
v1                             Service                   services                     ns status
v1                             ServiceAccount            serviceaccounts              ns
v1                             PersistentVolumeClaim     persistentvolumeclaims       ns status
v1                             ResourceQuota             resourcequotas               ns status
v1                             LimitRange                limitranges                  ns
v1                             Event                     events                       ns
batch/v1                       Job                       jobs                         ns status
apps/v1                        Deployment                deployments                  ns status
storage.k8s.io/v1              StorageClass              storageclasses               cluster
rbac.authorization.k8s.io/v1   Role                      roles                        ns
rbac.authorization.k8s.io/v1   RoleBinding               rolebindings                 ns
rbac.authorization.k8s.io/v1   ClusterRole               clusterroles                 cluster
rbac.authorization.k8s.io/v1   ClusterRoleBinding        clusterrolebindings          cluster
networking.k8s.io/v1           NetworkPolicy             networkpolicies              ns
authorization.k8s.io/v1        SelfSubjectAccessReview   selfsubjectaccessreviews     cluster
resource.k8s.io/v1             ResourceClaim             resourceclaims               ns status
resource.k8s.io/v1             ResourceClaimTemplate     resourceclaimtemplates       ns
resource.k8s.io/v1             ResourceSlice             resourceslices               cluster
resource.k8s.io/v1             DeviceClass               deviceclasses                cluster
jobset.x-k8s.io/v1alpha2       JobSet                    jobsets                      ns status
trainer.kubeflow.org/v1alpha1  TrainJob                  trainjobs                    ns status
trainer.kubeflow.org/v1alpha1  TrainingRuntime           trainingruntimes             ns
trainer.kubeflow.org/v1alpha1  ClusterTrainingRuntime    clustertrainingruntimes      cluster
kubeflow.org/v1                PyTorchJob                pytorchjobs                  ns status
kubeflow.org/v1beta1           Experiment                experiments                  ns status
kubeflow.org/v1beta1           Trial                     trials                       ns status
kubeflow.org/v1beta1           Suggestion                suggestions                  ns status
serving.kserve.io/v1beta1      InferenceService          inferenceservices            ns status
serving.kserve.io/v1alpha1     ServingRuntime            servingruntimes              ns
serving.kserve.io/v1alpha1     ClusterServingRuntime     clusterservingruntimes       cluster
serving.kserve.io/v1alpha1     LocalModelCache           localmodelcaches             cluster status
serving.kserve.io/v1alpha1     LocalModelNamespaceCache  localmodelnamespacecaches    ns status
serving.kserve.io/v1alpha1     LocalModelNodeGroup       localmodelnodegroups         cluster status
serving.kserve.io/v1alpha1     LocalModelNode            localmodelnodes              cluster status
serving.kserve.io/v1alpha2     LLMInferenceService       llminferenceservices         ns status
keda.sh/v1alpha1               ScaledObject              scaledobjects                ns status
"""


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    status: bool

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


def _row(row: str) -> Kind:
    api_version, kind, plural, *rest = row.split()
    return Kind(api_version, kind, plural, "ns" in rest, "status" in rest)


KINDS = tuple(_row(row) for row in _TABLE.strip().splitlines())
