//! CNI 1.1: types, configuration, calls, cache.
