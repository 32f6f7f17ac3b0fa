//! A container's process: arguments, environment, working folder, user, capabilities.

use berth_cri_proto::v1 as cri;
use berth_guard::Guard;
use oci_spec::runtime as oci;

use super::{container::capability_sets, security};
use crate::{
    capabilities,
    error::{ConfigError, no_nul},
    host::HostFacts,
    view::{ImageView, SandboxView},
};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a process with a terminal is told of it.
pub(super) const TERM: &str = "TERM=xterm";

pub(super) fn build(
    facts: &HostFacts,
    sandbox: &SandboxView<'_>,
    config: &cri::ContainerConfig,
    security: &cri::LinuxContainerSecurityContext,
    image: &ImageView,
) -> Result<oci::Process, ConfigError> {
    let identity = security::identity(security, image)?;
    let sets = capability_sets(facts, security)?;
    let mut user = oci::User::default();
    user.set_uid(identity.uid).set_gid(identity.gid).set_additional_gids(Some(identity.groups));
    let hostname = if sandbox.plan.hostname.is_empty() { &facts.hostname } else { &sandbox.plan.hostname };
    let mut process = oci::Process::default();
    process
        .set_terminal(config.tty.then_some(true))
        .set_user(user)
        .set_args(Some(arguments(config, image)?))
        .set_env(Some(environment(config, image, hostname, &identity.home)?))
        .set_cwd(working_dir(config, image)?.into())
        .set_capabilities(Some(capabilities::to_oci(&sets)))
        .set_no_new_privileges(security.no_new_privs.then_some(true))
        .set_rlimits(None);
    Ok(process)
}

/// The image's entrypoint and command, replaced as Docker does: a command replaces both, arguments the command alone.
fn arguments(config: &cri::ContainerConfig, image: &ImageView) -> Result<Vec<String>, ConfigError> {
    let mut args = config.command.clone();
    if args.is_empty() {
        // A single empty string is how an image resets the entrypoint of the one below it.
        if image.entrypoint != [""] {
            args.extend(image.entrypoint.iter().cloned());
        }
        if config.args.is_empty() {
            args.extend(image.cmd.iter().cloned());
        }
    }
    args.extend(config.args.iter().cloned());
    check_arguments("command", &args)?;
    Ok(args)
}

/// What execve(2) needs: a name, and no NUL.
pub(super) fn check_arguments(field: &str, args: &[String]) -> Result<(), ConfigError> {
    match args.first() {
        None => {
            return Err(ConfigError::new(
                field,
                "no command specified: neither the configuration nor the image has one",
                "set command",
            ));
        }
        Some(name) if name.is_empty() => {
            return Err(ConfigError::new(field, "the program's name is empty", "name the program"));
        }
        Some(_) => {}
    }
    args.iter().try_for_each(|arg| no_nul(field, arg))
}

fn environment(
    config: &cri::ContainerConfig,
    image: &ImageView,
    hostname: &str,
    home: &str,
) -> Result<Vec<String>, ConfigError> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if config.tty {
        env.push(TERM.to_owned());
    }
    env.push(format!("HOSTNAME={hostname}"));
    for entry in &image.env {
        no_nul("image.config.Env", entry)?;
        match entry.split_once('=') {
            // What exec would not take as a variable is nobody's variable.
            Some(("", _)) => {}
            Some(_) => set(&mut env, entry.clone()),
            None => env.retain(|known| name_of(known) != entry),
        }
    }
    for (index, variable) in config.envs.iter().enumerate() {
        let field = format!("envs[{index}]");
        no_nul(&field, &variable.key)?;
        if variable.key.is_empty() || variable.key.contains('=') {
            return Err(ConfigError::new(
                format!("{field}.key"),
                format!("{:?} is not a variable's name", variable.key),
                "use a name without '='",
            ));
        }
        let value = std::str::from_utf8(&variable.value).map_err(|_| {
            ConfigError::new(format!("{field}.value"), "it is not UTF-8", "encode it, for example in base64")
        })?;
        no_nul(&format!("{field}.value"), value)?;
        set(&mut env, format!("{}={value}", variable.key));
    }
    if !env.iter().any(|entry| name_of(entry) == "HOME") {
        env.push(format!("HOME={home}"));
    }
    Ok(env)
}

pub(super) fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

/// Replaces a variable in its place, or appends it.
pub(super) fn set(env: &mut Vec<String>, entry: String) {
    match env.iter_mut().find(|known| name_of(known) == name_of(&entry)) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

fn working_dir(config: &cri::ContainerConfig, image: &ImageView) -> Result<String, ConfigError> {
    let (field, path) = match (config.working_dir.as_str(), image.working_dir.as_str()) {
        ("", "") => return Ok("/".to_owned()),
        ("", path) => ("image.config.WorkingDir", path),
        (path, _) => ("working_dir", path),
    };
    no_nul(field, path)?;
    if !path.starts_with('/') {
        return Err(ConfigError::new(field, format!("{path:?} is not absolute"), "start it with a slash"));
    }
    // CVE-2024-21626: /proc/self/fd/7 as working folder is a folder of the host. The executor checks where it ends up;
    // what can only be meant as an attack does not get that far.
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let process = |part: &str| matches!(part, "self" | "thread-self") || part.bytes().all(|b| b.is_ascii_digit());
    if parts.next() == Some("proc") && parts.next().is_some_and(process) && Guard::PlainCwd.stands() {
        return Err(ConfigError::new(
            field,
            format!("{path:?} lies in a process's /proc folder"),
            "use another folder",
        ));
    }
    Ok(path.to_owned())
}
