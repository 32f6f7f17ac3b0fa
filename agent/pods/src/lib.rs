//! One worker per pod: carries out what the core decided.
