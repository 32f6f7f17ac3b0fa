//! Containers' scopes: made around a process, limited, and ended.
//!
//! systemd makes a scope only around a process that is there, and takes it away when its cgroup is empty. Who makes a
//! container therefore holds the scope with a process that does nothing ([`Scope::holder`]) until the container's first
//! one has been born into the cgroup. Should the maker be killed in between, the holder ends with it, and systemd clears
//! the scope away by itself.

use std::thread;
use std::time::{Duration, Instant};

use berth_cgroup::Cgroup;
use berth_cri_core::systemd::{Place, Property, Slice, Value};
use berth_plan::resources::{Resources, Setting};

use crate::error::SystemdError;
use crate::properties::{at_start, of_limits};
use crate::systemd::Systemd;

/// How long the rest of an earlier scope of the same name may take to go.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

const PIDS: &str = "pids.max";
/// Files that systemd writes together with others, as it believes them to be: rounded, or by a property that it does not let
/// be changed.
const INEXACT: &[&str] = &["cpu.max", "memory.oom.group"];

/// A scope that is to be.
#[derive(Debug)]
pub struct Scope<'a> {
    pub place: &'a Place,
    /// For people: `systemctl status` shows it.
    pub description: &'a str,
    /// A process that lives until somebody else is in the cgroup.
    pub holder: i32,
    pub resources: &'a Resources,
    pub settings: &'a [Setting],
    /// Further properties.
    pub extra: &'a [Property],
}

impl Systemd {
    /// Makes a scope with its limits; its cgroup, the place's path, is there afterwards. What a dead maker has left of one
    /// with its name is stopped first. The holder counts as one process more than the limit allows, so that a container of
    /// one process can be born; [`Systemd::limit`] with [`without_holder`] ends that.
    ///
    /// # Errors
    /// [`SystemdError::Taken`] when the name is somebody else's, or processes are in the cgroup; what systemd refuses.
    pub fn start_scope(&mut self, scope: &Scope<'_>, cgroup: &Cgroup) -> Result<(), SystemdError> {
        let pid = u32::try_from(scope.holder).unwrap_or(0);
        let mut properties = vec![
            Property::new("Description", scope.description),
            Property::new("Slice", scope.place.slice.name()),
            Property::new("Delegate", true),
            Property { name: "PIDs".to_owned(), value: Value::U32s(vec![pid]) },
        ];
        properties.extend(accounting());
        properties.extend(scope.extra.iter().cloned());
        let with_holder = with_holder(scope.resources);
        let version = self.version()?;
        properties.extend(of_limits(&with_holder, scope.settings, version)?);
        properties.extend(at_start(scope.resources, version));
        let unit = &scope.place.unit;
        let begun = Instant::now();
        loop {
            match self.start(unit, &properties) {
                Err(error) if error.is_taken() => {}
                other => return other,
            }
            let own = self.cgroup_of(unit)?;
            if !own.is_empty() && own != cgroup.path() {
                return Err(SystemdError::Taken { unit: unit.clone(), reason: format!("its cgroup is {own}") });
            }
            if cgroup.procs().is_empty() {
                self.stop(unit)?;
            } else if begun.elapsed() > PATIENCE {
                let reason = format!("{} process(es) are in it", cgroup.procs().len());
                return Err(SystemdError::Taken { unit: unit.clone(), reason });
            }
            if begun.elapsed() > PATIENCE * 2 {
                return Err(SystemdError::Taken { unit: unit.clone(), reason: "it does not go".to_owned() });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Makes a slice with its limits, or limits the one that is there.
    ///
    /// # Errors
    /// What systemd refuses.
    pub fn start_slice(&mut self, slice: &Slice, resources: &Resources) -> Result<(), SystemdError> {
        let limits = of_limits(resources, &[], self.version()?)?;
        let mut properties: Vec<Property> = accounting().into();
        properties.extend(limits.iter().cloned());
        match self.start(slice.name(), &properties) {
            Err(error) if error.is_taken() && limits.is_empty() => Ok(()),
            Err(error) if error.is_taken() => self.set(slice.name(), &limits),
            other => other,
        }
    }

    /// Changes the limits of a unit. One that is gone is fine: so is what was in it.
    ///
    /// # Errors
    /// What systemd or the kernel refuses.
    pub fn limit(
        &mut self,
        unit: &str,
        cgroup: &Cgroup,
        resources: &Resources,
        settings: &[Setting],
    ) -> Result<(), SystemdError> {
        let properties = of_limits(resources, settings, self.version()?)?;
        if properties.is_empty() {
            return Ok(());
        }
        let exact = cgroup.snapshot(INEXACT);
        match self.set(unit, &properties) {
            Err(error) if error.is_no_unit() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => match cgroup.restore(&exact) {
                Err(_) if !cgroup.exists() => Ok(()),
                other => Ok(other?),
            },
        }
    }

    /// Kills what is in a scope, stops it, and removes what is left of its cgroup. One that is gone is fine, and a unit of
    /// that name whose cgroup is another is left alone.
    ///
    /// # Errors
    /// Processes that do not die, and what systemd or the kernel refuses.
    pub fn end_scope(&mut self, unit: &str, cgroup: &Cgroup) -> Result<(), SystemdError> {
        // By us, at once: systemd would ask first, and wait for up to 90 s.
        cgroup.kill()?;
        let own = self.cgroup_of(unit)?;
        if own.is_empty() || own == cgroup.path() {
            self.stop(unit)?;
        }
        Ok(cgroup.remove()?)
    }
}

/// The limits while the holder is there.
pub fn with_holder(resources: &Resources) -> Resources {
    let more = |limit: i64| if limit > 0 { limit.saturating_add(1) } else { limit };
    let mut resources = resources.clone();
    resources.pids_limit = resources.pids_limit.map(more);
    for (file, value) in &mut resources.unified {
        if file == PIDS
            && let Ok(limit) = value.trim().parse()
        {
            *value = more(limit).to_string();
        }
    }
    resources
}

/// What [`with_holder`] has changed, as it was asked for.
pub fn without_holder(resources: &Resources) -> Resources {
    let unified = resources.unified.iter().filter(|(file, _)| file == PIDS).cloned().collect();
    Resources { pids_limit: resources.pids_limit, unified, ..Resources::default() }
}

/// What every unit has: each controller counts from the beginning, since memory that is in use is not moved into a count
/// that begins later.
fn accounting() -> [Property; 5] {
    let on = |name| Property::new(name, true);
    [
        on("MemoryAccounting"),
        on("CPUAccounting"),
        on("IOAccounting"),
        on("TasksAccounting"),
        // Otherwise a shutdown would end containers before their own runtime's unit does.
        Property::new("DefaultDependencies", false),
    ]
}
