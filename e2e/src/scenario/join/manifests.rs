//! What is applied.

use crate::controlplane::ADDRESS;
use crate::registry::{self, Registry, addons};
use crate::scenario::web;

/// A network for pods like kind's: hostNetwork, the CNI folder and xtables' lock from the host, two capabilities.
pub(super) fn kindnet(registry: &Registry) -> String {
    let image = registry.name(addons::KINDNET);
    format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: kindnet, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: kindnet}}
rules: [{{apiGroups: [\"\"], resources: [nodes], verbs: [list, watch]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: kindnet}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kindnet}}
subjects: [{{kind: ServiceAccount, name: kindnet, namespace: kube-system}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: kindnet, namespace: kube-system}}
spec:
  selector: {{matchLabels: {{app: kindnet}}}}
  template:
    metadata: {{labels: {{app: kindnet}}}}
    spec:
      hostNetwork: true
      serviceAccountName: kindnet
      terminationGracePeriodSeconds: 1
      tolerations: [{{operator: Exists}}]
      containers:
      - name: kindnet-cni
        image: {image}
        env:
        - {{name: CONTROL_PLANE_ENDPOINT, value: \"{ADDRESS}:6443\"}}
        - {{name: HOST_IP, valueFrom: {{fieldRef: {{fieldPath: status.hostIP}}}}}}
        - {{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        resources: {{requests: {{cpu: 100m, memory: 50Mi}}, limits: {{cpu: 100m, memory: 50Mi}}}}
        securityContext: {{privileged: false, capabilities: {{add: [NET_RAW, NET_ADMIN]}}}}
        volumeMounts:
        - {{name: cni-cfg, mountPath: /etc/cni/net.d}}
        - {{name: xtables-lock, mountPath: /run/xtables.lock}}
      volumes:
      - name: cni-cfg
        hostPath: {{path: /etc/cni/net.d, type: DirectoryOrCreate}}
      - name: xtables-lock
        hostPath: {{path: /run/xtables.lock, type: FileOrCreate}}
"
    )
}

/// Web servers behind a Service.
pub(super) fn web(registry: &Registry, replicas: usize) -> String {
    web::deployment(registry, replicas)
        + "        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080, targetPort: 80}]
"
}

/// A pod on `node` that looks up the cluster's own name and the Service's, and asks the Service by its name.
pub(super) fn client(registry: &Registry, node: &str) -> String {
    let image = registry.name(registry::BUSYBOX);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: client-{node}, labels: {{app: client}}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {image}
    command:
    - sh
    - -c
    - |
      address() {{ nslookup -type=a $1 2>&1 | awk '/^Name:/ {{ found = 1 }} found && /^Address:/ {{ print $2 }}'; }}
      for left in $(seq 60); do
        cluster=$(address kubernetes.default.svc.cluster.local)
        service=$(address web.default.svc.cluster.local)
        answer=$([ -n \"$service\" ] && timeout 5 wget -q -O - http://$service:8080/)
        if [ -n \"$cluster\" ] && [ -n \"$answer\" ]; then
          echo cluster $cluster service $service answer $answer
          exit 0
        fi
        sleep 1
      done
      echo cluster $cluster service $service answer $answer
      cat /etc/resolv.conf
      exit 1
"
    )
}
