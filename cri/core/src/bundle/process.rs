//! Processes: a container's first one, and those that join it.

use berth_plan::bundle::{BundleExec, IoPriority, MemoryPolicy, More, Scheduler};
use berth_plan::container::{Capabilities, Process};
use oci_spec::runtime as oci;

use super::{Listener, Outside, filter, wrong};
use crate::capabilities;
use crate::compile::lower;
use crate::error::{ConfigError, no_nul};
use crate::host::Arch;

/// The first process, what it has beyond others', and where its filter's listener goes to.
pub(super) fn first(
    spec: &oci::Spec,
    linux: &oci::Linux,
    outside: &Outside<'_>,
) -> Result<(Process, More, Option<Listener>), ConfigError> {
    let Some(process) = spec.process() else {
        return Err(wrong("process", "it is missing", "say what to run"));
    };
    if process.exec_cpu_affinity().is_some() {
        // It is of processes that join.
        affinity(process)?;
    }
    let mut lowered = lower_process(process)?;
    let mut more = more(process, linux)?;
    more.kept_descriptors = outside.kept_descriptors;
    more.inherits_keyring = outside.inherits_keyring;
    let mut goes_to = None;
    if let Some((installation, listener)) = filter(linux, outside.arch)? {
        lowered.seccomp = installation.filter;
        more.seccomp_flags = installation.flags;
        more.seccomp_listener = installation.listener;
        goes_to = listener;
    }
    Ok((lowered, more, goes_to))
}

/// What an exec has to know of the container that it joins.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    pub spec: &'a oci::Spec,
    pub arch: Arch,
    pub kept_descriptors: u32,
}

/// Compiles one more process in a container. Capabilities are what the process itself names, as in a configuration.
///
/// # Errors
/// The first field that is wrong, by its JSON path.
pub fn exec(process: &oci::Process, joining: &Joining<'_>) -> Result<(BundleExec, Option<Listener>), ConfigError> {
    if process.selinux_label().as_deref().is_some_and(|label| !label.is_empty()) {
        return Err(super::not_supported("process.selinuxLabel"));
    }
    let linux = joining.spec.linux().clone().unwrap_or_default();
    let mut lowered = lower_process(process)?;
    let mut more = more(process, &linux)?;
    more.processors = affinity(process)?;
    more.kept_descriptors = joining.kept_descriptors;
    let mut goes_to = None;
    if let Some((installation, listener)) = filter(&linux, joining.arch)? {
        lowered.seccomp = installation.filter;
        more.seccomp_flags = installation.flags;
        more.seccomp_listener = installation.listener;
        goes_to = listener;
    }
    let has = |typ| linux.namespaces().iter().flatten().any(|one| one.typ() == typ);
    let plan = BundleExec {
        process: lowered,
        more,
        user: has(oci::LinuxNamespaceType::User),
        time: has(oci::LinuxNamespaceType::Time),
    };
    Ok((plan, goes_to))
}

fn lower_process(process: &oci::Process) -> Result<Process, ConfigError> {
    let args = process.args().clone().unwrap_or_default();
    match args.first().map(String::as_str) {
        None => return Err(wrong("process.args", "args must not be empty", "name a program")),
        Some("") => return Err(wrong("process.args[0]", "it is empty", "name a program")),
        Some(_) => {}
    }
    let env = process.env().clone().unwrap_or_default();
    for (field, texts) in [("process.args", &args), ("process.env", &env)] {
        for (index, text) in texts.iter().enumerate() {
            no_nul(&format!("{field}[{index}]"), text)?;
        }
    }
    let cwd = lower::text(process.cwd());
    if !cwd.starts_with('/') {
        return Err(wrong("process.cwd", format!("Cwd must be an absolute path, and is {cwd:?}"), "begin it with /"));
    }
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        let field = |name: &str| format!("process.rlimits[{index}].{name}");
        if limits[..index].iter().any(|other| other.typ() == limit.typ()) {
            return Err(wrong(field("type"), "it is listed twice", "list it once"));
        }
        if limit.soft() > limit.hard() {
            return Err(wrong(field("soft"), "it is above the hard limit", "lower it"));
        }
    }
    let oom_score_adj = process.oom_score_adj();
    if oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(wrong("process.oomScoreAdj", "it is out of range", "use -1000 to 1000"));
    }
    let user = process.user();
    let capabilities = process.capabilities().as_ref().map(capabilities::from_oci).unwrap_or_default();
    Ok(Process {
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: checked(capabilities)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp: Vec::new(),
        rlimits: limits.iter().map(lower::rlimit).collect(),
        oom_score_adj,
        terminal: process.terminal().unwrap_or(false),
        apparmor: process.apparmor_profile().clone().unwrap_or_default(),
    })
}

/// The kernel would refuse what no process can have.
fn checked(sets: Capabilities) -> Result<Capabilities, ConfigError> {
    if let Some(name) = capabilities::names(sets.effective & !sets.permitted).next() {
        let reason = format!("{name} is not permitted");
        return Err(wrong("process.capabilities.effective", reason, "add it to permitted"));
    }
    Ok(sets)
}

fn more(process: &oci::Process, linux: &oci::Linux) -> Result<More, ConfigError> {
    Ok(More {
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        personality: linux.personality().as_ref().map(personality).transpose()?,
        memory_policy: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
        ..More::default()
    })
}

// linux/sched.h
fn scheduler(wanted: &oci::Scheduler) -> Result<Scheduler, ConfigError> {
    use oci::LinuxSchedulerPolicy as P;
    let policy = match wanted.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().map(|flag| match flag {
        oci::LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        oci::LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        oci::LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        oci::LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        oci::LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        oci::LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        oci::LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    });
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(wrong("process.scheduler.nice", format!("{nice} is out of range"), "use -20 to 19"));
    }
    let priority = wanted.priority().unwrap_or(0);
    if priority != 0 && !matches!(policy, 1 | 2) {
        let reason = "only SCHED_FIFO and SCHED_RR have it";
        return Err(wrong("process.scheduler.priority", reason, "remove it"));
    }
    let priority = u32::try_from(priority)
        .map_err(|_| wrong("process.scheduler.priority", format!("{priority} is negative"), "use 1 to 99"))?;
    let (runtime, deadline, period) =
        (wanted.runtime().unwrap_or(0), wanted.deadline().unwrap_or(0), wanted.period().unwrap_or(0));
    if policy != 6 && (runtime, deadline, period) != (0, 0, 0) {
        let reason = "only SCHED_DEADLINE has runtime, deadline and period";
        return Err(wrong("process.scheduler.runtime", reason, "remove them"));
    }
    Ok(Scheduler { policy, flags: flags.sum(), nice, priority, runtime, deadline, period })
}

fn io_priority(wanted: &oci::LinuxIOPriority) -> Result<IoPriority, ConfigError> {
    let class = match wanted.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    let priority = wanted.priority();
    let priority = u32::try_from(priority)
        .ok()
        .filter(|priority| *priority <= 7)
        .ok_or_else(|| wrong("process.ioPriority.priority", format!("{priority} is out of range"), "use 0 to 7"))?;
    Ok(IoPriority { class, priority })
}

// linux/personality.h
fn personality(wanted: &oci::LinuxPersonality) -> Result<u64, ConfigError> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(super::not_supported("linux.personality.flags"));
    }
    Ok(match wanted.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

// linux/mempolicy.h
fn memory_policy(wanted: &oci::LinuxMemoryPolicy) -> Result<MemoryPolicy, ConfigError> {
    use oci::MemoryPolicyModeType as M;
    let mode: u32 = match wanted.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().map(|flag| match flag {
        oci::MemoryPolicyFlagType::MpolFStaticNodes => 1_u32 << 15,
        oci::MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        oci::MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
    });
    let nodes = wanted.nodes().as_deref().unwrap_or_default();
    Ok(MemoryPolicy {
        mode: mode | flags.fold(0, |all, flag| all | flag),
        nodes: numbers("linux.memoryPolicy.nodes", nodes)?,
    })
}

/// `initial` is for the time before the process is in the container's cgroup, which passes in no time here; what counts
/// is `final`, and `initial` where nothing else is said.
fn affinity(process: &oci::Process) -> Result<Vec<u32>, ConfigError> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Vec::new()) };
    let initial = affinity.initial().as_deref().unwrap_or_default();
    let last = affinity.cpu_affinity_final().as_deref().unwrap_or_default();
    numbers("process.execCPUAffinity.initial", initial)?;
    numbers("process.execCPUAffinity.final", last)
}

/// A list of the kernel's form, `0-2,7`.
fn numbers(field: &str, list: &str) -> Result<Vec<u32>, ConfigError> {
    const MOST: u32 = 8192;
    let bad = || wrong(field, format!("{list:?} is not a list of numbers"), "use the form 0-2,7");
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first > last || last >= MOST {
            return Err(bad());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}
