//! Volumes of a pod, from their sources to host paths.
