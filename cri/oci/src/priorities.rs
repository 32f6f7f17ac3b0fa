//! What a process of a bundle has beyond those of the shim's: when it runs, and what the machine looks like to it.

use berth_plan::bundle::More;
use berth_plan::message::{Failure, Stage};
use berth_sys::schedule::{self, Policy};

use crate::failure::At;

/// While the process still has its capabilities.
pub(crate) fn apply(more: &More) -> Result<(), Failure> {
    if let Some(wanted) = &more.scheduler {
        let policy = Policy {
            policy: wanted.policy,
            flags: wanted.flags,
            nice: wanted.nice,
            priority: wanted.priority,
            runtime: wanted.runtime,
            deadline: wanted.deadline,
            period: wanted.period,
        };
        schedule::set_policy(&policy).at(Stage::Rlimit, || "set process.scheduler".to_owned())?;
    }
    if let Some(wanted) = more.io_priority {
        schedule::set_io_priority(wanted.class, wanted.priority)
            .at(Stage::Rlimit, || "set process.ioPriority".to_owned())?;
    }
    if let Some(persona) = more.personality {
        schedule::set_personality(persona).at(Stage::Rlimit, || "set linux.personality".to_owned())?;
    }
    if let Some(wanted) = &more.memory_policy {
        schedule::set_memory_policy(wanted.mode, &wanted.nodes)
            .at(Stage::Rlimit, || "set linux.memoryPolicy".to_owned())?;
    }
    if !more.processors.is_empty() {
        let processors: Vec<usize> = more.processors.iter().filter_map(|&one| usize::try_from(one).ok()).collect();
        schedule::set_processors(&processors).at(Stage::Rlimit, || "set process.execCPUAffinity".to_owned())?;
    }
    Ok(())
}
