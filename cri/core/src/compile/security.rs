//! Users, seccomp, AppArmor and SELinux of a container.

use berth_cri_proto::v1 as cri;
use berth_guard::Guard;
use cri::security_profile::ProfileType;
use oci_spec::runtime as oci;

use super::container::capability_sets;
use crate::{
    apparmor::DEFAULT_PROFILE,
    error::{ConfigError, no_nul},
    host::HostFacts,
    seccomp,
    users::{self, Id, Identity, UserString},
    view::{HostFiles, ImageView, Paths},
};

/// Who a container's process runs as: run_as_username, run_as_user, the image's USER, or root, in this order.
pub fn identity(security: &cri::LinuxContainerSecurityContext, image: &ImageView) -> Result<Identity, ConfigError> {
    const USER: &str = "linux.security_context.run_as_user";
    const NAME: &str = "linux.security_context.run_as_username";
    const GROUP: &str = "linux.security_context.run_as_group";
    const GROUPS: &str = "linux.security_context.supplemental_groups";
    let group = security.run_as_group.as_ref().map(|group| id(GROUP, group.value)).transpose()?;
    let (field, mut wanted) = if !security.run_as_username.is_empty() {
        (NAME, UserString { user: parse_id(NAME, &security.run_as_username)?, group: None })
    } else if let Some(user) = &security.run_as_user {
        (USER, UserString { user: Id::Number(id(USER, user.value)?), group: None })
    } else if group.is_some() {
        return Err(ConfigError::new(GROUP, "it is set without run_as_user or run_as_username", "set one of them too"));
    } else if image.user.is_empty() {
        (USER, UserString { user: Id::Number(0), group: None })
    } else {
        let wanted = UserString::parse(&image.user).map_err(|error| {
            ConfigError::new("image.config.User", error.to_string(), "set run_as_user, or rebuild the image")
        })?;
        ("image.config.User", wanted)
    };
    if let Some(group) = group {
        wanted.group = Some(Id::Number(group));
    }
    let extra: Vec<_> =
        security.supplemental_groups.iter().map(|group| id(GROUPS, *group)).collect::<Result<_, _>>()?;
    let merge = match security.supplemental_groups_policy() {
        cri::SupplementalGroupsPolicy::Merge => true,
        cri::SupplementalGroupsPolicy::Strict => false,
    };
    users::resolve(&wanted, merge, &extra, &image.passwd, &image.group)
        .map_err(|error| ConfigError::new(field, error.to_string(), "use a user of the image, or a number"))
}

fn id(field: &str, value: i64) -> Result<u32, ConfigError> {
    u32::try_from(value).ok().filter(|id| *id <= users::MAX_ID).ok_or_else(|| {
        ConfigError::new(field, format!("{value} is out of range"), format!("use 0 to {}", users::MAX_ID))
    })
}

fn parse_id(field: &str, text: &str) -> Result<Id, ConfigError> {
    Id::parse(text).map_err(|error| ConfigError::new(field, error.to_string(), "use a user of the image"))
}

const SECCOMP: &str = "linux.security_context.seccomp";

/// The host path of the seccomp profile that a container names as localhost, for the caller to read into
/// [`crate::view::HostFiles::seccomp_profile`].
pub fn seccomp_profile_path(config: &cri::ContainerConfig) -> Result<Option<String>, ConfigError> {
    let Some(security) = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()) else {
        return Ok(None);
    };
    if security.privileged {
        return Ok(None);
    }
    let profile = seccomp_choice(security)?;
    if profile.profile_type() != ProfileType::Localhost {
        return Ok(None);
    }
    let path = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ConfigError::new(
            format!("{SECCOMP}.localhost_ref"),
            format!("{path:?} is not an absolute path"),
            "give the profile's full path on the node",
        ));
    }
    Ok(Some(path.to_owned()))
}

/// The filter of a container and what to keep it under; none for privileged containers and unconfined ones.
pub(super) fn seccomp(
    facts: &HostFacts,
    security: &cri::LinuxContainerSecurityContext,
    paths: &Paths,
) -> Result<(Option<oci::LinuxSeccomp>, Option<seccomp::Key>), ConfigError> {
    if security.privileged {
        return Ok((None, None));
    }
    let profile = seccomp_choice(security)?;
    match profile.profile_type() {
        ProfileType::Unconfined => Ok((None, None)),
        ProfileType::RuntimeDefault => {
            let bounding = capability_sets(facts, security)?.bounding;
            let key = seccomp::Key::runtime_default(facts.arch, bounding);
            Ok((Some(seccomp::runtime_default(facts.arch, bounding)), Some(key)))
        }
        ProfileType::Localhost => {
            let text = paths.host.seccomp_profile.clone().ok_or_else(|| {
                ConfigError::new(
                    format!("{SECCOMP}.localhost_ref"),
                    format!("the node has no profile {:?}", profile.localhost_ref),
                    "install it on the node",
                )
            })?;
            let parsed = serde_json::from_str(&text).map_err(|error| {
                ConfigError::new(
                    format!("{SECCOMP}.localhost_ref"),
                    format!("{:?} is not a seccomp profile: {error}", profile.localhost_ref),
                    "correct the profile",
                )
            })?;
            Ok((Some(parsed), Some(seccomp::Key::Localhost { text })))
        }
    }
}

fn seccomp_choice(security: &cri::LinuxContainerSecurityContext) -> Result<cri::SecurityProfile, ConfigError> {
    if let Some(profile) = &security.seccomp {
        if profile.profile_type() != ProfileType::Localhost && !profile.localhost_ref.is_empty() {
            return Err(ConfigError::new(
                format!("{SECCOMP}.localhost_ref"),
                "it is set although profile_type is not Localhost",
                "clear it, or set profile_type",
            ));
        }
        return Ok(profile.clone());
    }
    #[allow(deprecated, reason = "older clients set nothing else")]
    let legacy = &security.seccomp_profile_path;
    legacy_profile("linux.security_context.seccomp_profile_path", legacy, ProfileType::Unconfined)
}

/// The old form, one string; the empty one means `unset`.
fn legacy_profile(field: &str, text: &str, unset: ProfileType) -> Result<cri::SecurityProfile, ConfigError> {
    let (kind, path) = match text {
        "" => (unset, ""),
        "runtime/default" | "docker/default" => (ProfileType::RuntimeDefault, ""),
        "unconfined" => (ProfileType::Unconfined, ""),
        other => match other.strip_prefix("localhost/") {
            Some(path) if !path.is_empty() => (ProfileType::Localhost, path),
            _ => {
                return Err(ConfigError::new(
                    field,
                    format!("{other:?} is not a profile"),
                    "use runtime/default, unconfined or localhost/NAME",
                ));
            }
        },
    };
    Ok(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() })
}

/// The AppArmor profile of a container; a container that asks for one that can't be applied is refused rather than run
/// without it. The new field wins over the old one. Who asks for nothing gets the default where it is loaded, as with
/// containerd (`v2.4.2:internal/cri/server/container_create.go#generateApparmorSpecOpts`).
pub(super) fn apparmor(
    facts: &HostFacts,
    security: &cri::LinuxContainerSecurityContext,
    host: &HostFiles,
) -> Result<Option<String>, ConfigError> {
    const FIELD: &str = "linux.security_context.apparmor";
    const OLD: &str = "linux.security_context.apparmor_profile";
    let is_loaded = |name: &str| host.apparmor_profiles.iter().any(|loaded| loaded == name);
    #[allow(deprecated, reason = "older clients set nothing else")]
    let legacy = &security.apparmor_profile;
    let (field, profile) = match &security.apparmor {
        Some(profile) => (FIELD, profile.clone()),
        None if legacy.is_empty() => {
            let default = facts.apparmor && !security.privileged && is_loaded(DEFAULT_PROFILE);
            return Ok(default.then(|| DEFAULT_PROFILE.to_owned()));
        }
        None => (OLD, legacy_profile(OLD, legacy, ProfileType::Unconfined)?),
    };
    let name = match profile.profile_type() {
        ProfileType::Unconfined => return Ok(None),
        // Privileged containers are never confined.
        _ if security.privileged && facts.apparmor => return Ok(None),
        ProfileType::RuntimeDefault => DEFAULT_PROFILE,
        ProfileType::Localhost => {
            profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref).trim()
        }
    };
    no_nul(field, name)?;
    let refuse = |reason: String, remedy: &str| Err(ConfigError::new(field, reason, remedy));
    if !facts.apparmor {
        return refuse(
            format!("this host has no AppArmor, so {name:?} cannot be applied"),
            "use Unconfined, or another node",
        );
    }
    match is_loaded(name) {
        true => Ok(Some(name.to_owned())),
        false if name == DEFAULT_PROFILE => refuse(
            format!("the profile {name:?} is not loaded on the node"),
            "install apparmor_parser(8) there and restart the runtime, which then loads it",
        ),
        false => refuse(format!("the profile {name:?} is not loaded on the node"), "load it with apparmor_parser(8)"),
    }
}

/// Labels mean nothing on a host without SELinux; on one with it they would have to be applied.
pub(super) fn selinux(facts: &HostFacts, security: &cri::LinuxContainerSecurityContext) -> Result<(), ConfigError> {
    let asked = security.selinux_options.as_ref().is_some_and(|options| {
        !(options.user.is_empty() && options.role.is_empty() && options.r#type.is_empty() && options.level.is_empty())
    });
    if facts.selinux && asked && !security.privileged && Guard::LabelsRefused.stands() {
        return Err(ConfigError::new(
            "linux.security_context.selinux_options",
            "SELinux labels are not implemented, and this host enforces them",
            "drop the options, or use another node",
        ));
    }
    Ok(())
}
