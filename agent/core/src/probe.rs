//! The probes of one container instance: when each runs next, and what their outcomes mean.
//!
//! Whoever carries the probes out asks [`Probing::next`], says [`Probing::begin`] and [`Probing::end`], and reads
//! [`Probing::health`]. The moments handed in must not run backwards within one [`Probing`].
//!
//! The rules are the kubelet's, with two differences on the side of speed: a probe runs as soon as its delay is over
//! (the kubelet waits for the tick of a clock that began with the pod), and a container that was never ready is asked
//! more often than its period says, up to its period (the kubelet asks whenever it happens to look at the pod).
//! A container that ran before the agent did keeps what was published of it until a probe says otherwise.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/prober/worker.go#doProbe`, `prober_manager.go#UpdatePodStatus`.

use k8s_openapi::api::core::v1::{Container, Probe};

use crate::expansion::expand;
use crate::{Moment, Seen};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whether the container has started; the others wait for it.
    Startup,
    /// Whether it still works; it is ended when not.
    Liveness,
    /// Whether it can serve.
    Readiness,
}

impl Kind {
    /// All of them, in the order in which they run when they are due at once.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes say of a container instance that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Its startup probe has succeeded, or it has none.
    pub started: bool,
    /// It has started, and its readiness probe says that it can serve, or it has none.
    pub ready: bool,
    /// The probe for whose failures it must end.
    pub failed: Option<Kind>,
}

impl Health {
    /// Before any probe has run.
    pub fn unknown(container: &Container) -> Self {
        let started = container.startup_probe.is_none();
        Self { started, ready: started && container.readiness_probe.is_none(), failed: None }
    }

    /// Of an instance that runs: what its probes say, or what can be said before they ran.
    pub(crate) fn of(container: &Container, id: &str, seen: &Seen) -> Self {
        seen.health.get(id).copied().unwrap_or_else(|| Self::unknown(container))
    }
}

/// A command with the references to the container's literal environment replaced, as exec probes have it.
pub fn command(container: &Container, command: &[String]) -> Vec<String> {
    let value = |name: &str| {
        let declared = container.env.iter().flatten().rfind(|variable| variable.name == name)?;
        declared.value_from.is_none().then(|| declared.value.as_deref().unwrap_or_default())
    };
    command.iter().map(|word| expand(word, value)).collect()
}

fn at_least_one(field: Option<i32>, default: i32) -> i64 {
    i64::from(field.filter(|value| *value > 0).unwrap_or(default))
}

/// One probe's course.
#[derive(Debug, Clone)]
struct Course {
    /// Seconds from the container's start to the first run.
    delay: i64,
    /// Seconds from the beginning of one run to that of the next.
    period: i64,
    /// Successes in a row that make a verdict.
    successes: i64,
    /// Failures in a row that make a verdict.
    failures: i64,
    verdict: Option<bool>,
    /// The latest outcome, and how often in a row it came.
    row: Option<(bool, i64)>,
    /// When it runs next; while it runs, when it began.
    due: Moment,
    running: bool,
    /// Its verdict is final for this instance.
    held: bool,
    /// Runs so far.
    runs: u32,
}

impl Course {
    fn new(probe: &Probe, due: Moment) -> Self {
        Self {
            delay: i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0)),
            period: at_least_one(probe.period_seconds, 10),
            successes: at_least_one(probe.success_threshold, 1),
            failures: at_least_one(probe.failure_threshold, 3),
            verdict: None,
            row: None,
            due,
            running: false,
            held: false,
            runs: 0,
        }
    }

    /// Seconds from the beginning of the latest run to that of the next.
    fn pause(&self, kind: Kind) -> i64 {
        // Asked more often, nothing but readiness could fail sooner than its author said.
        if kind == Kind::Readiness && self.verdict.is_none() && self.row.is_none_or(|(success, _)| !success) {
            return self.period.min(1 << self.runs.saturating_sub(1).min(20));
        }
        self.period
    }

    fn judge(&mut self, kind: Kind, success: bool) {
        let count = match self.row {
            Some((last, count)) if last == success => count.saturating_add(1),
            _ => 1,
        };
        self.row = Some((success, count));
        if count < if success { self.successes } else { self.failures } {
            return;
        }
        // Until the first success a readiness probe has nothing to take back, and goes on being asked often.
        if kind != Kind::Readiness || success || self.verdict.is_some() {
            self.verdict = Some(success);
        }
        self.held = kind == Kind::Startup || (kind == Kind::Liveness && !success);
    }
}

/// The probes of one container instance.
#[derive(Debug, Clone)]
pub struct Probing {
    /// When the container began.
    begun: Moment,
    startup: Option<Course>,
    liveness: Option<Course>,
    readiness: Option<Course>,
    ending: bool,
}

impl Probing {
    /// The probes of the instance `id` that began at `begun`; `None` when the container declares none. `known`: what
    /// was published of this instance by an earlier run of the agent.
    pub fn new(container: &Container, id: &str, begun: Moment, known: Option<Health>, now: Moment) -> Option<Self> {
        let course = |kind: Kind| {
            let mut course = Course::new(kind.of(container)?, now);
            course.due = begun.plus_seconds(course.delay).max(now);
            Some(course)
        };
        let mut probing = Self {
            begun,
            startup: course(Kind::Startup),
            liveness: course(Kind::Liveness),
            readiness: course(Kind::Readiness),
            ending: false,
        };
        if probing.startup.is_none() && probing.liveness.is_none() && probing.readiness.is_none() {
            return None;
        }
        if let Some(known) = known.filter(|known| known.started) {
            if let Some(startup) = &mut probing.startup {
                startup.verdict = Some(true);
                startup.held = true;
            }
            if let Some(readiness) = &mut probing.readiness {
                readiness.verdict = known.ready.then_some(true);
            }
            // All containers of a node are adopted at once: what is known to be well need not be asked at once.
            for (kind, course) in [(Kind::Liveness, &mut probing.liveness), (Kind::Readiness, &mut probing.readiness)] {
                if let Some(course) = course.as_mut().filter(|_| kind == Kind::Liveness || known.ready) {
                    course.due = course.due.max(now.plus_millis(jitter(id, kind, course.period)));
                }
            }
        }
        Some(probing)
    }

    fn course(&mut self, kind: Kind) -> Option<&mut Course> {
        match kind {
            Kind::Startup => self.startup.as_mut(),
            Kind::Liveness => self.liveness.as_mut(),
            Kind::Readiness => self.readiness.as_mut(),
        }
    }

    /// The probe that runs next, and when; `None` while nothing can be due.
    pub fn next(&self) -> Option<(Kind, Moment)> {
        let started = self.startup.as_ref().is_none_or(|startup| startup.verdict == Some(true));
        let courses = [
            (Kind::Startup, self.startup.as_ref().filter(|_| !self.ending)),
            (Kind::Liveness, self.liveness.as_ref().filter(|_| started && !self.ending)),
            (Kind::Readiness, self.readiness.as_ref().filter(|_| started)),
        ];
        let open = courses.into_iter().filter_map(|(kind, course)| Some((kind, course?)));
        let waiting = open.filter(|(_, course)| !course.running && !course.held);
        waiting.map(|(kind, course)| (kind, course.due)).min_by_key(|(_, due)| *due)
    }

    /// A run of this probe begins.
    pub fn begin(&mut self, kind: Kind, now: Moment) {
        if let Some(course) = self.course(kind) {
            course.running = true;
            course.due = now;
            course.runs = course.runs.saturating_add(1);
        }
    }

    /// And has ended: `Some(true)` well, `Some(false)` badly, `None` without an outcome that counts.
    pub fn end(&mut self, kind: Kind, outcome: Option<bool>, now: Moment) {
        let begun = self.begun;
        let Some(course) = self.course(kind) else { return };
        course.running = false;
        if let Some(success) = outcome {
            course.judge(kind, success);
        }
        course.due = course.due.plus_seconds(course.pause(kind)).max(now);
        if kind == Kind::Startup && outcome == Some(true) {
            for course in [&mut self.liveness, &mut self.readiness].into_iter().flatten() {
                course.due = begun.plus_seconds(course.delay).max(now);
            }
        }
    }

    /// The pod is to end: from now on only its readiness matters.
    pub fn ending(&mut self) {
        self.ending = true;
    }

    /// What the probes say now.
    pub fn health(&self) -> Health {
        let verdict = |course: &Option<Course>| course.as_ref().map(|course| course.verdict);
        let is = |course: &Option<Course>, wanted: bool| verdict(course).is_some_and(|verdict| verdict == Some(wanted));
        let started = self.startup.is_none() || is(&self.startup, true);
        let failed = if self.ending {
            None
        } else if is(&self.startup, false) {
            Some(Kind::Startup)
        } else {
            is(&self.liveness, false).then_some(Kind::Liveness)
        };
        Health { started, ready: started && (self.readiness.is_none() || is(&self.readiness, true)), failed }
    }
}

/// Milliseconds below `period` seconds, the same for the same probe and spread over all of them.
fn jitter(id: &str, kind: Kind, period: i64) -> i64 {
    let bytes = id.bytes().chain(kind.as_str().bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The hash's high bits are the well mixed ones.
    let share = i64::try_from(hash >> 32).unwrap_or(0) % 1000;
    share.saturating_mul(period)
}

#[cfg(test)]
mod tests;
