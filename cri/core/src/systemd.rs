//! What systemd is told of containers: names of units, their properties, and the annotations that become some.
//!
//! A container is a transient scope in a slice. Only a scope has processes that others have made; a slice has other units.
//! Where a unit's cgroup lies follows from its slice's name alone (systemd.slice(5)).

mod annotations;
mod names;
mod property;

pub use annotations::{PREFIX, properties};
pub use names::{NameError, Place, Slice};
pub use property::{Property, Value};
