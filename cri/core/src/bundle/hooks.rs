//! Programs that are run at certain moments.

use berth_plan::bundle as plan;
use oci_spec::runtime as oci;

use super::wrong;
use crate::compile::lower;
use crate::error::ConfigError;

/// All of a container's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    pub prestart: Vec<plan::Hook>,
    pub create_runtime: Vec<plan::Hook>,
    pub create_container: Vec<plan::Hook>,
    pub start_container: Vec<plan::Hook>,
    pub poststart: Vec<plan::Hook>,
    pub poststop: Vec<plan::Hook>,
}

impl Hooks {
    /// Those of a configuration.
    ///
    /// # Errors
    /// The first field that is wrong, by its JSON path.
    pub fn of(spec: &oci::Spec) -> Result<Self, ConfigError> {
        compile(spec.hooks().as_ref())
    }
}

pub(super) fn compile(hooks: Option<&oci::Hooks>) -> Result<Hooks, ConfigError> {
    let Some(hooks) = hooks else { return Ok(Hooks::default()) };
    #[allow(deprecated, reason = "it is still in use")]
    let prestart = hooks.prestart();
    Ok(Hooks {
        prestart: list("prestart", prestart)?,
        create_runtime: list("createRuntime", hooks.create_runtime())?,
        create_container: list("createContainer", hooks.create_container())?,
        start_container: list("startContainer", hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
    })
}

fn list(name: &str, hooks: &Option<Vec<oci::Hook>>) -> Result<Vec<plan::Hook>, ConfigError> {
    hooks.iter().flatten().enumerate().map(|(index, hook)| one(&format!("hooks.{name}[{index}]"), hook)).collect()
}

fn one(field: &str, hook: &oci::Hook) -> Result<plan::Hook, ConfigError> {
    if !hook.path().is_absolute() {
        let reason = format!("{:?} is not absolute", hook.path());
        return Err(wrong(format!("{field}.path"), reason, "begin it with /"));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => Some(u32::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
            wrong(format!("{field}.timeout"), format!("{seconds} is no time"), "use a positive number of seconds")
        })?),
    };
    Ok(plan::Hook {
        path: lower::text(hook.path()),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout,
    })
}
