//! Playing a case with all runtimes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::stage::Stage;

/// A runtime under test, or one to compare with.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// crun refuses a hybrid layout, so it sees the v1 part of it.
    pub(crate) without_unified: bool,
}

pub(crate) fn berth() -> Runtime {
    Runtime { name: "berth-oci", program: env!("CARGO_BIN_EXE_berth-oci").into(), without_unified: false }
}

fn references() -> [Runtime; 2] {
    let find = |name: &str| {
        let places = ["/usr/bin", "/usr/sbin"].map(|folder| Path::new(folder).join(name));
        places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| panic!("{name} is missing: apt-get install"))
    };
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    [
        Runtime { name: "crun", program: find("crun"), without_unified: hybrid },
        Runtime { name: "runc", program: find("runc"), without_unified: false },
    ]
}

/// Set where a machine is too slow for the references, as an emulated one: that they play the cases is seen elsewhere.
const ALONE: &str = "BERTH_TEST_ALONE";

/// Plays a case with all three.
pub(crate) fn all(case: fn(&Stage)) {
    if std::env::var_os(ALONE).is_some() {
        return case(&Stage::new(berth()));
    }
    let plays = |runtime: Runtime| catch_unwind(AssertUnwindSafe(|| case(&Stage::new(runtime)))).is_ok();
    let right: Vec<&str> =
        references().into_iter().filter(|one| plays(one.clone())).map(|runtime| runtime.name).collect();
    assert!(!right.is_empty(), "neither crun nor runc plays this: the case is wrong");
    eprintln!("played by {}", right.join(" and "));
    case(&Stage::new(berth()));
}

/// Plays a case with `berth-oci` alone, for a reason.
pub(crate) fn alone(_reason: &str, case: fn(&Stage)) {
    case(&Stage::new(berth()));
}
