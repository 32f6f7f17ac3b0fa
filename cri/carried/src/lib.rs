//! Static programs carried inside Berth: the shim and the sample workload.
