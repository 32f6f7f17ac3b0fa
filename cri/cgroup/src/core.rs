//! The machine's layout in the words of the core, which decides by it.

use berth_cri_core::host as core;

use crate::{Hierarchy, Host, Layout};

impl From<&Host> for core::CgroupLayout {
    fn from(host: &Host) -> Self {
        let hierarchies = || host.hierarchies().iter().map(core::Hierarchy::from).collect();
        let options = host.unified_options();
        let unified =
            core::UnifiedOptions { nsdelegate: options.nsdelegate, memory_recursiveprot: options.memory_recursiveprot };
        match host.layout() {
            Layout::V1 => Self::V1 { hierarchies: hierarchies() },
            Layout::Hybrid => Self::Hybrid { hierarchies: hierarchies(), unified },
            Layout::V2 => Self::V2 { unified },
        }
    }
}

impl From<&Hierarchy> for core::Hierarchy {
    fn from(hierarchy: &Hierarchy) -> Self {
        Self {
            folder: hierarchy.folder.clone(),
            controllers: hierarchy.controllers.clone(),
            name: hierarchy.name.clone(),
        }
    }
}
