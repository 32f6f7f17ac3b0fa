//! Which namespaces are new, which are entered, and what may be set in them.

use berth_plan::bundle::{IdMap, IdMaps, Join, NamespaceKind, UserNamespace};
use berth_plan::container::NewNamespaces;
use oci_spec::runtime as oci;

use super::{not_supported, wrong};
use crate::compile::lower;
use crate::error::{ConfigError, no_nul};
use crate::parameters;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Namespaces {
    pub(super) new: NewNamespaces,
    pub(super) user: UserNamespace,
    pub(super) joins: Vec<Join>,
    pub(super) time_offsets: Option<String>,
    /// Whether the container has another one than the runtime, for all that it says.
    pub(super) own_uts: bool,
    pub(super) own_ipc: bool,
    pub(super) own_net: bool,
    pub(super) own_cgroup: bool,
}

pub(super) fn compile(linux: &oci::Linux) -> Result<Namespaces, ConfigError> {
    use oci::LinuxNamespaceType as T;
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in listed.iter().enumerate() {
        if listed[..index].iter().any(|other| other.typ() == namespace.typ()) {
            return Err(wrong(format!("linux.namespaces[{index}].type"), "it is listed twice", "list it once"));
        }
    }
    let has = |typ| listed.iter().any(|one| one.typ() == typ);
    let mut spaces = Namespaces {
        new: lower::new_namespaces(linux),
        own_uts: has(T::Uts),
        own_ipc: has(T::Ipc),
        own_net: has(T::Network),
        own_cgroup: has(T::Cgroup),
        ..Namespaces::default()
    };
    if !has(T::Mount) {
        return Err(wrong("linux.namespaces", "one of type mount is missing", "add it"));
    }
    let mut new_user = false;
    for (index, namespace) in listed.iter().enumerate() {
        let Some(path) = namespace.path() else {
            new_user |= namespace.typ() == T::User;
            continue;
        };
        let field = format!("linux.namespaces[{index}].path");
        if !path.is_absolute() {
            return Err(wrong(field, format!("{path:?} is not absolute"), "begin it with /"));
        }
        let path = lower::text(path);
        let kind = match namespace.typ() {
            T::Cgroup => NamespaceKind::Cgroup,
            T::Ipc => NamespaceKind::Ipc,
            T::Network => NamespaceKind::Net,
            T::Pid => NamespaceKind::Pid,
            T::Time => NamespaceKind::Time,
            T::Uts => NamespaceKind::Uts,
            T::User => {
                spaces.user = UserNamespace::Joined(path);
                continue;
            }
            T::Mount => return Err(not_supported(field)),
        };
        spaces.joins.push(Join { kind, path });
    }
    let maps = IdMaps {
        users: maps("linux.uidMappings", linux.uid_mappings())?,
        groups: maps("linux.gidMappings", linux.gid_mappings())?,
    };
    let needs = |field, reason| Err(wrong(field, reason, "add them"));
    match (new_user, maps.users.is_empty(), maps.groups.is_empty()) {
        (true, true, _) => return needs("linux.uidMappings", "a new user namespace has no ids without them"),
        (true, _, true) => return needs("linux.gidMappings", "a new user namespace has no ids without them"),
        (true, false, false) => spaces.user = UserNamespace::New(maps),
        // Beside a namespace that exists they say what it has.
        (false, no_users, no_groups) if spaces.user == UserNamespace::Host && !(no_users && no_groups) => {
            let reason = "they mean nothing without a user namespace";
            return Err(wrong("linux.uidMappings", reason, "add one of type user"));
        }
        (false, ..) => {}
    }
    let new_time = listed.iter().any(|one| one.typ() == T::Time && one.path().is_none());
    spaces.time_offsets = time_offsets(linux, new_time)?;
    Ok(spaces)
}

fn time_offsets(linux: &oci::Linux, new: bool) -> Result<Option<String>, ConfigError> {
    let offsets = linux.time_offsets().clone().unwrap_or_default();
    if !new {
        return if offsets.is_empty() {
            Ok(None)
        } else {
            Err(wrong("linux.timeOffsets", "they need a new time namespace", "add one of type time"))
        };
    }
    let mut lines = Vec::new();
    for (clock, offset) in &offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let field = format!("linux.timeOffsets[{clock:?}]");
            return Err(wrong(field, "there is no such clock", "use monotonic or boottime"));
        }
        lines.push(format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    lines.sort();
    Ok(Some(lines.concat()))
}

pub(super) fn maps(field: &str, maps: &Option<Vec<oci::LinuxIdMapping>>) -> Result<Vec<IdMap>, ConfigError> {
    let one = |(index, map): (usize, &oci::LinuxIdMapping)| {
        if map.size() == 0 {
            return Err(wrong(format!("{field}[{index}].size"), "it is 0", "use at least 1"));
        }
        Ok(IdMap { inside: map.container_id(), outside: map.host_id(), length: map.size() })
    };
    maps.iter().flatten().enumerate().map(one).collect()
}

/// Only parameters of namespaces that the container has for itself.
pub(super) fn sysctls(linux: &oci::Linux, spaces: &Namespaces) -> Result<Vec<(String, String)>, ConfigError> {
    let mut sysctls: Vec<_> = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    sysctls.sort();
    for (name, value) in &sysctls {
        let field = format!("linux.sysctl[{name:?}]");
        no_nul(&field, value)?;
        let path = match name.find(['.', '/']) {
            Some(at) if name[at..].starts_with('.') => name.replace('.', "/"),
            _ => name.clone(),
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(wrong(field, "it is not the name of a parameter", "use plain parts separated by dots"));
        }
        let (own, what) = if path.starts_with("net/") {
            (spaces.own_net, "network")
        } else if parameters::is_of_ipc(&path) {
            (spaces.own_ipc, "ipc")
        } else if ["kernel/domainname", "kernel/hostname"].contains(&path.as_str()) {
            (spaces.own_uts, "uts")
        } else {
            return Err(wrong(field, format!("sysctl {name:?} is not in a separate kernel namespace"), "remove it"));
        };
        if !own {
            let reason = format!("sysctl {name:?} is not allowed in the hosts {what} namespace");
            return Err(wrong(field, reason, "give the container a namespace of its own"));
        }
    }
    Ok(sysctls)
}
