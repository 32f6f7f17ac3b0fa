//! The standard CNI plugins, in-process and as one multi-call binary.
