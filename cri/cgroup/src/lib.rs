//! cgroups v1, hybrid and v2 by their files.
