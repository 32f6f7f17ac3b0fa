//! Mounts: words of options become bits and settings.

use berth_plan::bundle::{BundleMount, IdMaps, UserNamespace};
use berth_plan::container::{Mount, MountSource};
use oci_spec::runtime as oci;

use super::namespaces::{Namespaces, maps};
use super::{Outside, absolute, not_supported, wrong};
use crate::compile::lower;
use crate::error::ConfigError;

/// Words that mean nothing to a mount of its own: the kernel's defaults, or for the file system alone.
const WITHOUT_MEANING: [&str; 9] =
    ["defaults", "async", "loud", "nomand", "noiversion", "nolazytime", "norelatime", "nodirsync", "noremount"];
/// Words for the file system, which has flags by these names.
const FILESYSTEM: [&str; 6] = ["sync", "dirsync", "lazytime", "mand", "iversion", "silent"];
const ATTRIBUTES: [&str; 18] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "nosymfollow",
    "symfollow",
    "nodiratime",
    "diratime",
    "relatime",
    "nostrictatime",
    "noatime",
    "strictatime",
    "norelatime",
    "atime",
];
const PROPAGATIONS: [&str; 8] =
    ["private", "slave", "shared", "unbindable", "rprivate", "rslave", "rshared", "runbindable"];

/// Every word with a meaning of its own, for `features`.
pub fn options() -> Vec<String> {
    let mut words: Vec<String> = WITHOUT_MEANING
        .iter()
        .chain(&FILESYSTEM)
        .chain(&ATTRIBUTES)
        .chain(&PROPAGATIONS)
        .chain(&["bind", "rbind", "idmap", "ridmap", "tmpcopyup"])
        .map(|word| (*word).to_owned())
        .filter(|word| word != "noremount" && word != "nodirsync")
        .collect();
    words.extend(ATTRIBUTES.iter().map(|word| format!("r{word}")));
    words.sort();
    words.dedup();
    words
}

pub(super) fn compile(
    spec: &oci::Spec,
    outside: &Outside<'_>,
    spaces: &Namespaces,
    remarks: &mut Vec<String>,
) -> Result<Vec<BundleMount>, ConfigError> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts.map(|(index, mount)| one(index, mount, outside, spaces, remarks)).collect()
}

fn one(
    index: usize,
    mount: &oci::Mount,
    outside: &Outside<'_>,
    spaces: &Namespaces,
    remarks: &mut Vec<String>,
) -> Result<BundleMount, ConfigError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let words = mount.options().as_deref().unwrap_or_default();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let kind = mount.typ().as_deref().filter(|kind| !kind.is_empty());
    let bind = kind == Some("bind") || has(&["bind", "rbind"]);
    let destination = lower::text(mount.destination());
    if destination.is_empty() {
        return Err(wrong(field("destination"), "it is empty", "name a path"));
    }
    let mut read = Words::default();
    for word in words {
        if !read.take(word, bind) {
            if word == "remount" {
                return Err(wrong(field("options"), "\"remount\" is not supported", "remove it"));
            }
            // As mount(2) has it.
            remarks.push(format!("{}: {word:?} means nothing to a bind mount", field("options")));
        }
    }
    if read.copy_up && bind {
        return Err(wrong(field("options"), "\"tmpcopyup\" is for new file systems", "remove it"));
    }
    let source = mount.source().as_deref().map(lower::text).unwrap_or_default();
    let mut cgroups = Vec::new();
    let lowered = if bind {
        if source.is_empty() {
            return Err(wrong(field("source"), "it is missing", "name what to bind"));
        }
        MountSource::Bind { path: absolute(outside.bundle, &source), recursive: read.recursive_bind }
    } else {
        match kind {
            None => return Err(wrong(field("type"), "it is missing", "name a file system, or the option bind")),
            Some("cgroup") => {
                if !spaces.own_cgroup {
                    cgroups = outside.cgroup_paths.to_vec();
                }
                lower::cgroup(outside.cgroups)
            }
            Some(kind) => {
                let mut options = read.rest;
                if !source.is_empty() {
                    options.insert(0, ("source".to_owned(), source));
                }
                MountSource::Filesystem { kind: kind.to_owned(), options }
            }
        }
    };
    let ids = ids(index, mount, &read.ids, spaces)?;
    if ids.is_some() && !bind {
        return Err(wrong(field("uidMappings"), "only a bind mount can have them", "remove them"));
    }
    Ok(BundleMount {
        mount: Mount {
            source: lowered,
            destination: if destination.starts_with('/') { destination } else { format!("/{destination}") },
            attr_set: read.set,
            attr_clear: if bind { read.clear } else { 0 },
            recursive_attr: false,
            propagation: read.propagation,
            idmap: None,
        },
        recursive_set: read.recursive_set,
        recursive_clear: read.recursive_clear,
        recursive_ids: read.ids == Some(true),
        ids,
        cgroups,
        copy_up: read.copy_up,
    })
}

/// With which ids a mount shows files: its own maps, or the container's where it only says `idmap`.
fn ids(
    index: usize,
    mount: &oci::Mount,
    asked: &Option<bool>,
    spaces: &Namespaces,
) -> Result<Option<IdMaps>, ConfigError> {
    let users = maps(&format!("mounts[{index}].uidMappings"), mount.uid_mappings())?;
    let groups = maps(&format!("mounts[{index}].gidMappings"), mount.gid_mappings())?;
    match (users.is_empty(), groups.is_empty(), asked, &spaces.user) {
        (true, true, None, _) => Ok(None),
        (false, false, ..) => Ok(Some(IdMaps { users, groups })),
        (true, true, Some(_), UserNamespace::New(maps)) => Ok(Some(maps.clone())),
        (true, true, Some(_), UserNamespace::Joined(_)) => {
            Err(not_supported(format!("mounts[{index}].options: idmap without mappings in a joined user namespace")))
        }
        (true, true, Some(_), UserNamespace::Host) => {
            let reason = "\"idmap\" needs mappings, as the container has no user namespace";
            Err(wrong(format!("mounts[{index}].options"), reason, "add uidMappings and gidMappings"))
        }
        _ => {
            let reason = "both or none of uidMappings and gidMappings must be given";
            Err(wrong(format!("mounts[{index}].uidMappings"), reason, "give both"))
        }
    }
}

/// What a list of words comes to.
#[derive(Debug, Default)]
struct Words {
    set: u64,
    clear: u64,
    recursive_set: u64,
    recursive_clear: u64,
    propagation: u64,
    recursive_bind: bool,
    /// Whether files are shown with other ids; of the whole tree where `true`.
    ids: Option<bool>,
    copy_up: bool,
    rest: Vec<(String, String)>,
}

impl Words {
    /// Whether the word means something.
    fn take(&mut self, word: &str, bind: bool) -> bool {
        match word {
            "bind" | "rbind" => self.recursive_bind |= word == "rbind",
            "idmap" | "ridmap" => self.ids = Some(word == "ridmap"),
            "tmpcopyup" => self.copy_up = true,
            // Of the whole tree it means as little as of one mount.
            "rnorelatime" => {}
            _ if WITHOUT_MEANING.contains(&word) => {}
            _ => {
                if let Some(flags) = lower::propagation(word) {
                    self.propagation = flags;
                } else if attribute(word, &mut self.set, &mut self.clear, bind) {
                } else if let Some(plain) = word.strip_prefix('r')
                    && attribute(plain, &mut self.recursive_set, &mut self.recursive_clear, false)
                {
                } else if bind || word == "remount" {
                    return false;
                } else {
                    let (name, value) = word.split_once('=').unwrap_or((word, ""));
                    self.rest.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        true
    }
}

/// Takes a word for an attribute of a mount. A bind mount keeps that its source is read-only whatever the usual `rw` says,
/// as with mount(2).
fn attribute(word: &str, set: &mut u64, clear: &mut u64, keeps_readonly: bool) -> bool {
    let time = match word {
        "atime" => Some(0),
        _ => lower::access_time(word),
    };
    if let Some(value) = time {
        *set = *set & !lower::MOUNT_ATTR_ATIME | value;
        *clear |= lower::MOUNT_ATTR_ATIME;
    } else if let Some((bit, sets)) = lower::attribute(word) {
        *set = if sets { *set | bit } else { *set & !bit };
        let kept = keeps_readonly && bit == lower::MOUNT_ATTR_RDONLY;
        match (sets, kept) {
            (true, _) => *clear &= !bit,
            (false, true) => {}
            (false, false) => *clear |= bit,
        }
    } else {
        return false;
    }
    true
}
