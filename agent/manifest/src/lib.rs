//! Reads YAML manifests and configuration files as sigs.k8s.io/yaml does.
