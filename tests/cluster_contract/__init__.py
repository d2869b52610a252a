"""The contract with a real cluster: `make test-cluster`, against whatever KUBECONFIG points to.

`make test` collects nothing here (see `conftest`): these tests need a cluster, and write to it. They hold on a bare
API server with the definitions and nothing else: no controllers, so that a namespace has no service account and never
ends, what is owned is not collected, and finalizers stay.
"""
