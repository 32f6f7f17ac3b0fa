//! Pod and QoS cgroups of the node agent.
