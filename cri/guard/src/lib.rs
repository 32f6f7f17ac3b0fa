//! Names of the guards against known attacks.
//!
//! Each guard is a condition somewhere in the code that keeps an attack of `cri/ATTACKS.md` out. A test that mounts the
//! attack proves nothing as long as it has not failed once; so a build with the feature `switchable` lets
//! `BERTH_WITHOUT_GUARDS` (names, separated by commas) take guards away, and `cargo xtask attacks --red` runs each test
//! without its guard and wants to see it fail. In every other build [`Guard::stands`] is the constant `true`, and nothing
//! of this is left in the program.

pub mod failing;

/// Whether guards can be taken away in this build.
pub const SWITCHABLE: bool = cfg!(feature = "switchable");

/// Takes guards away in a switchable build, by their names.
pub const VARIABLE: &str = "BERTH_WITHOUT_GUARDS";

macro_rules! guards {
    ($($(#[doc = $doc:literal])+ $guard:ident = $name:literal,)+) => {
        /// A condition that keeps an attack out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Guard {
            $($(#[doc = $doc])+ $guard,)+
        }

        impl Guard {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$guard),+];

            /// What the table and the environment variable call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$guard => $name,)+
                }
            }
        }
    };
}

guards! {
    /// A shim runs from a read-only mount of its own file.
    ReadonlySelf = "readonly-self",
    /// An AppArmor profile is applied through a procfs only.
    AppArmorByProcfs = "apparmor-by-procfs",
    /// proc and sysfs are mounted on folders that no link leads to.
    OrdinaryFolders = "ordinary-folders",
    /// What is looked up below a root stays below it.
    InRoot = "in-root",
    /// Inheritable capabilities are empty.
    NoInheritable = "no-inheritable",
    /// A container's view of its cgroups is read-only.
    ReadonlyCgroups = "readonly-cgroups",
    /// No working folder in a process's folder of /proc.
    PlainCwd = "plain-cwd",
    /// The working folder is entered by a handle below the root, without magic links.
    CwdByHandle = "cwd-by-handle",
    /// The working folder must turn out to lie inside the root.
    CwdInside = "cwd-inside",
    /// The host's folders are closed before the container's are looked up by name.
    HostClosed = "host-closed",
    /// Files are masked with the host's null device, not with what the image calls so.
    HostNull = "host-null",
    /// A terminal is not mounted over what a link leads to.
    ConsoleIsNoLink = "console-is-no-link",
    /// No volume over a part of procfs.
    NothingInProc = "nothing-in-proc",
    /// Sysctls are written through the host's procfs.
    SysctlByHost = "sysctl-by-host",
    /// What is there in a device's place must be that device.
    SameDevice = "same-device",
    /// A user of digits is a number.
    DigitsAreNumbers = "digits-are-numbers",
    /// User and group numbers are in range.
    IdsInRange = "ids-in-range",
    /// The groups of a process are those of the plan, and no others.
    ExactGroups = "exact-groups",
    /// The value of a sysctl carries no second one.
    PlainSysctls = "plain-sysctls",
    /// Annotations and labels of others do not become annotations of the container.
    OwnAnnotations = "own-annotations",
    /// A log lies below the pod's log folder.
    LogBelowFolder = "log-below-folder",
    /// SELinux labels are refused where they would have to be applied.
    LabelsRefused = "labels-refused",
    /// What the kernel tells of the machine is masked.
    MachineMasked = "machine-masked",
    /// An unpacker's root is its layer.
    UnpackerPivots = "unpacker-pivots",
    /// An unpacker looks up all names below its root.
    UnpackerInRoot = "unpacker-in-root",
    /// A link's own mode is not set through it.
    LinksKeepMode = "links-keep-mode",
    /// No `..` in the names of an archive.
    NoParents = "no-parents",
    /// Extended attributes of an archive are those that an image may have.
    ImageAttributes = "image-attributes",
    /// Sparse files in pax format are refused.
    NoSparse = "no-sparse",
    /// An archive has a limited number of entries.
    EntriesBounded = "entries-bounded",
    /// An archive unpacks to a limited multiple of its size.
    RatioBounded = "ratio-bounded",
    /// Documents of a registry have a limited length.
    DocumentsBounded = "documents-bounded",
    /// A document is a manifest or an index, whichever way it is read.
    OneKind = "one-kind",
    /// An image's passwd and group are read to a limit.
    UsersBounded = "users-bounded",
    /// Folders with what containers wrote are closed to other users of the node.
    PrivateFolders = "private-folders",
    /// The output that an ExecSync keeps is limited.
    OutputBounded = "output-bounded",
}

impl Guard {
    /// Whether the guard is there: always, but in a switchable build that was told otherwise.
    #[cfg(not(feature = "switchable"))]
    #[inline(always)]
    pub const fn stands(self) -> bool {
        true
    }

    /// Whether the guard is there: always, but in a switchable build that was told otherwise.
    #[cfg(feature = "switchable")]
    pub fn stands(self) -> bool {
        std::env::var(VARIABLE).map_or(true, |names| names.split(',').all(|name| name != self.name()))
    }
}

/// What a process that starts another one with an empty environment must hand on: nothing, but in a switchable build.
pub fn environment() -> Option<(&'static str, String)> {
    if !SWITCHABLE {
        return None;
    }
    std::env::var(VARIABLE).ok().map(|names| (VARIABLE, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = Guard::ALL.iter().map(|guard| guard.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Guard::ALL.len());
    }

    #[test]
    fn guards_stand_unless_they_are_taken_away() {
        // What the environment says is for `cargo xtask attacks --red`.
        if environment().is_none() {
            assert!(Guard::ALL.iter().all(|guard| guard.stands()));
        }
    }
}
