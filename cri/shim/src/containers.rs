//! Containers, from the request to start one to the request to forget it.
//!
//! ```text
//! Opening (the logger opens the log) -> Starting (the child makes itself a container) -> Running
//!   -> Draining (ended; the logger writes what is left in the pipes) -> Exited -> forgotten
//! ```
//! Starting may turn into Failing instead, until the child is reaped; the container is gone then, with the reply.

use std::os::fd::{AsFd, OwnedFd};

use berth_oci::Starting;
use berth_oci::launch::{self, Birthplace, Handed as Launch};
use berth_plan::codec;
use berth_plan::container::{ContainerHead, PidFrom, Stdin};
use berth_plan::message::{Event, Exit, Failure, Held, Reply, Stage, Target};
use berth_sys::pidfd::{Ended, PidFd};
use berth_sys::{fd, process, signal};

use crate::answer::{Answer, Asker, failed, refused};
use crate::clients::Handed;
use crate::heads;
use crate::records;
use crate::shim::{Key, Shim};

/// So many that [`Reply::Hello`] fits into a message.
const MAX: usize = 128;
/// How long an exit waits for the logger, in milliseconds: enough for a pipe's content, and no hostage of a stalled disk.
const DRAIN: u64 = 250;

/// The exit code of a container whose program was never executed, as containerd has it.
const NEVER_RAN: i32 = 128;

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: u32,
    name: String,
    head: ContainerHead,
    /// Read ends of standard output and error, or the terminal's master alone once there is one; kept for a logger to come.
    pub(crate) streams: Vec<OwnedFd>,
    /// The write end of standard input, held open for attach; given away with [`Stdin::Once`].
    stdin: Option<OwnedFd>,
    state: State,
}

#[derive(Debug)]
enum State {
    Opening {
        asker: Asker,
        handed: Handed,
        stdio: [OwnedFd; 3],
    },
    Starting {
        asker: Asker,
        starting: Starting,
    },
    /// It can't become a container; it is ending, and its asker hears when nothing of it is left.
    Failing {
        asker: Asker,
        pid: i32,
        failure: Failure,
    },
    Running {
        pid: i32,
        started_at: i64,
    },
    Draining {
        exit: Exit,
        deadline: u64,
    },
    Exited {
        exit: Exit,
    },
}

impl Container {
    pub(crate) fn log_path(&self) -> &str {
        &self.head.log_path
    }

    pub(crate) fn is_logged(&self) -> bool {
        !self.head.log_path.is_empty()
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.head.terminal
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether it was asked to have an input.
    pub(crate) fn has_input(&self) -> bool {
        self.head.stdin != Stdin::None
    }

    /// What a client types to: the terminal, or a write end of standard input, which is the only one with
    /// [`Stdin::Once`]. `None` where nobody reads.
    pub(crate) fn input(&mut self) -> std::io::Result<Option<OwnedFd>> {
        match (self.head.terminal, self.head.stdin) {
            (true, _) => self.streams.first().map(OwnedFd::try_clone).transpose(),
            (false, Stdin::Once) => Ok(self.stdin.take()),
            (false, _) => self.stdin.as_ref().map(OwnedFd::try_clone).transpose(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Starting { starting, .. } => Some(starting.pid),
            State::Failing { pid, .. } | State::Running { pid, .. } => Some(*pid),
            State::Opening { .. } | State::Draining { .. } | State::Exited { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Containers {
    all: Vec<Container>,
}

impl Containers {
    pub(crate) fn of_pid(&self, pid: i32) -> Option<u32> {
        self.all.iter().find(|container| container.pid() == Some(pid)).map(|container| container.id)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Container> {
        self.all.iter().find(|container| container.name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.all.iter()
    }

    /// The first process of a container whose program runs.
    pub(crate) fn running_pid(&self, name: &str) -> Option<i32> {
        match self.named(name)?.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// What a runtime should know of.
    pub(crate) fn held(&self) -> Vec<Held> {
        let running = |container: &Container, pid, started_at| {
            Some(Held::Running { container: container.name.clone(), pid, started_at })
        };
        let held = |container: &Container| match container.state {
            State::Opening { .. } => None,
            // Its asker may be gone: whoever asks now hears of its end, at the latest.
            State::Starting { ref starting, .. } => running(container, starting.pid, process::now()),
            State::Failing { pid, .. } => running(container, pid, process::now()),
            State::Running { pid, started_at } => running(container, pid, started_at),
            State::Draining { exit, .. } | State::Exited { exit } => {
                Some(Held::Exited { container: container.name.clone(), exit })
            }
        };
        self.all.iter().filter_map(held).collect()
    }

    pub(crate) fn any_alive(&self) -> bool {
        self.all.iter().any(|container| !matches!(container.state, State::Exited { .. }))
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        self.all
            .iter()
            .filter_map(|c| if let State::Draining { deadline, .. } = c.state { Some(deadline) } else { None })
            .min()
    }

    pub(crate) fn overdue(&self, now: u64) -> Option<u32> {
        self.all.iter().find(|c| matches!(c.state, State::Draining { deadline, .. } if deadline <= now)).map(|c| c.id)
    }

    /// Asks the children that are on their way whether another process goes on in their place.
    pub(crate) fn learn_heirs(&mut self) {
        for container in &mut self.all {
            if let State::Starting { starting, .. } = &mut container.state {
                starting.refresh();
            }
        }
    }

    pub(crate) fn get(&mut self, id: u32) -> Option<&mut Container> {
        self.all.iter_mut().find(|container| container.id == id)
    }

    fn take(&mut self, id: u32) -> Option<Container> {
        let at = self.all.iter().position(|container| container.id == id)?;
        Some(self.all.swap_remove(at))
    }
}

impl Shim {
    pub(crate) fn start_container(&mut self, asker: Asker, name: String, handed: Handed) -> Answer {
        if !records::is_name(&name) {
            return Err(refused(Stage::Protocol, format!("{name:?} is no container's id")));
        }
        if !self.sandbox_ready {
            return Err(refused(Stage::Protocol, "the sandbox is not made yet"));
        }
        if self.containers.named(&name).is_some() {
            return Err(refused(Stage::AlreadyExists, format!("container {name} exists")));
        }
        if self.containers.all.len() >= MAX {
            return Err(refused(Stage::Protocol, format!("a sandbox has {MAX} containers at most")));
        }
        let plan = handed.first.first().ok_or_else(|| refused(Stage::Protocol, "there is no plan"))?;
        let head = heads::read(plan.as_fd(), codec::container_head)?;
        if head.id != name {
            return Err(refused(Stage::Protocol, "the plan is another container's"));
        }
        let id = self.number();
        let container = self.make_container(asker, id, name, head, handed)?;
        let logged = container.is_logged();
        self.containers.all.push(container);
        // The log comes first, so that a log that can't be written is an error and no silence.
        if let Err(failure) = self.open_log(id) {
            self.containers.take(id);
            return Err(failure);
        }
        if !logged {
            self.fork_container(id);
        }
        Ok(None)
    }

    /// A container with its pipes; a terminal is made by the container itself.
    fn make_container(
        &self,
        asker: Asker,
        id: u32,
        name: String,
        head: ContainerHead,
        handed: Handed,
    ) -> Result<Container, Failure> {
        let pipe = || fd::pipe().map_err(failed(Stage::Fork, "make a pipe"));
        let null = || self.null.try_clone().map_err(failed(Stage::Fork, "duplicate a descriptor"));
        let (input, stdin) = match head.stdin {
            Stdin::Open | Stdin::Once if !head.terminal => pipe().map(|(reader, writer)| (reader, Some(writer)))?,
            _ => (null()?, None),
        };
        let (streams, output, error) = if head.terminal {
            (Vec::new(), null()?, null()?)
        } else {
            let ((out_reader, out_writer), (err_reader, err_writer)) = (pipe()?, pipe()?);
            (vec![out_reader, err_reader], out_writer, err_writer)
        };
        if let Some(stdin) = &stdin {
            // Those who are given it must not wait for a container that does not read.
            fd::set_nonblocking(stdin.as_fd(), true).map_err(failed(Stage::Fork, "make a pipe"))?;
        }
        let state = State::Opening { asker, handed, stdio: [input, output, error] };
        Ok(Container { id, name, head, streams, stdin, state })
    }

    /// The logger has opened the log, or not; or there is none.
    pub(crate) fn log_opened(&mut self, id: u32, outcome: Result<(), Failure>) {
        if !matches!(self.containers.get(id), Some(Container { state: State::Opening { .. }, .. })) {
            return;
        }
        match outcome {
            Ok(()) => self.fork_container(id),
            Err(failure) => self.fail_container(id, failure),
        }
    }

    fn fork_container(&mut self, id: u32) {
        let Some(mut container) = self.containers.take(id) else { return };
        let State::Opening { asker, handed, stdio } = container.state else {
            return self.containers.all.push(container);
        };
        let Some(plan) = handed.first.first() else { return };
        let launch = Launch {
            plan: plan.as_fd(),
            stdio: [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()],
            cgroup_tasks: &handed.cgroup_tasks,
            cgroup_v2: handed.cgroup_v2.as_ref().map(AsFd::as_fd),
        };
        let outcome = self.launch(&container.head, &launch);
        let watched = outcome.and_then(|starting| match self.epoll.add(&starting, Key::Container(id).number()) {
            Ok(()) => Ok(starting),
            Err(error) => {
                let _ = signal::send(starting.pid, signal::SIGKILL);
                Err(failed(Stage::Fork, "watch the child")(error))
            }
        });
        match watched {
            Ok(starting) => {
                container.state = State::Starting { asker, starting };
                self.containers.all.push(container);
            }
            Err(failure) => {
                self.close_log(id);
                self.reply(asker, Reply::Failed(failure));
            }
        }
    }

    /// Forks the first process in the namespaces that it shares.
    fn launch(&self, head: &ContainerHead, launch: &Launch<'_>) -> Result<Starting, Failure> {
        let target = match &head.pid_from {
            PidFrom::Container(name) if !head.namespaces.pid => {
                let pid = self.containers.running_pid(name).ok_or_else(|| {
                    refused(
                        Stage::UnknownTarget,
                        format!("container {name}, whose processes are to be joined, is not running"),
                    )
                })?;
                // Our child and not reaped, so the number is its own.
                Some(PidFd::open(pid).map_err(failed(Stage::UnknownTarget, "open the container's process"))?)
            }
            _ => None,
        };
        let pid = match &head.pid_from {
            _ if head.namespaces.pid => None,
            PidFrom::Shim => None,
            PidFrom::Container(_) => target.as_ref().map(AsFd::as_fd),
            PidFrom::Pod => Some(
                self.pod
                    .pid_namespace()
                    .ok_or_else(|| refused(Stage::Protocol, "the sandbox has no PID namespace of its own"))?,
            ),
        };
        if head.user.is_some() != self.pod.user.is_some() {
            return Err(refused(Stage::Protocol, "container and sandbox differ in having a user namespace"));
        }
        let user = self.pod.user.as_ref().map(AsFd::as_fd);
        launch::container(head.namespaces, Birthplace { own_pid: self.pid_namespace.as_fd(), pid, user }, launch)
    }

    /// The child has reported.
    pub(crate) fn hear_container(&mut self, id: u32) {
        let Some(Container { state: State::Starting { starting, .. }, .. }) = self.containers.get(id) else { return };
        match starting.outcome() {
            None => {}
            Some(Ok(())) => self.container_runs(id),
            Some(Err(failure)) => self.fail_container(id, failure),
        }
    }

    fn container_runs(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let State::Starting { asker, starting } = &container.state else { return };
        let (asker, pid, started_at) = (*asker, starting.pid, process::now());
        let State::Starting { mut starting, .. } =
            std::mem::replace(&mut container.state, State::Running { pid, started_at })
        else {
            return;
        };
        let _ = self.epoll.remove(&starting);
        if container.has_terminal() {
            container.streams.extend(starting.take_terminal());
            // A logger that can't be reached is dead, as a rule, and the next one is given the streams.
            let _ = self.read_terminal(id);
        }
        self.reply(asker, Reply::Started { pid, started_at });
    }

    /// Ends a container that never ran.
    fn fail_container(&mut self, id: u32, failure: Failure) {
        let Some(container) = self.containers.get(id) else { return };
        match &container.state {
            State::Opening { asker, .. } => {
                let asker = *asker;
                self.containers.take(id);
                self.close_log(id);
                self.reply(asker, Reply::Failed(failure));
            }
            State::Starting { asker, starting } => {
                let (asker, pid) = (*asker, starting.pid);
                let _ = self.epoll.remove(starting);
                // It is about to leave by itself; its number is ours until it is reaped.
                let _ = signal::send(pid, signal::SIGKILL);
                container.state = State::Failing { asker, pid, failure };
            }
            State::Failing { .. } | State::Running { .. } | State::Draining { .. } | State::Exited { .. } => {}
        }
    }

    /// Nothing is left of a container that never ran. Where its asker is gone, another client may have been told that it
    /// runs: then it has exited.
    fn container_failed(&mut self, id: u32, asker: Asker, pid: i32, failure: Failure) {
        if !self.clients.has(asker.client) {
            let now = process::now();
            let exit = Exit { pid, code: NEVER_RAN, signal: 0, started_at: now, finished_at: now };
            return self.container_exits(id, exit);
        }
        self.containers.take(id);
        self.close_log(id);
        self.reply(asker, Reply::Failed(failure));
    }

    /// Whoever asked for these containers is gone, and nothing of them exists yet.
    pub(crate) fn cancel_openings(&mut self, client: u32) {
        let opening = |c: &&Container| matches!(c.state, State::Opening { asker, .. } if asker.client == client);
        let ids: Vec<u32> = self.containers.all.iter().filter(opening).map(|c| c.id).collect();
        for id in ids {
            self.containers.take(id);
            self.close_log(id);
        }
    }

    /// The first process was reaped.
    pub(crate) fn container_ended(&mut self, id: u32, ended: Ended) {
        if let Some(Container { state: State::Starting { asker, starting }, .. }) = self.containers.get(id) {
            // It ended before its report was read.
            let (asker, pid) = (*asker, starting.pid);
            let silent = || Err(refused(Stage::Fork, "the process ended without a report"));
            match starting.outcome().unwrap_or_else(silent) {
                Ok(()) => self.container_runs(id),
                Err(failure) => return self.container_failed(id, asker, pid, failure),
            }
        }
        let Some(container) = self.containers.get(id) else { return };
        if let State::Failing { asker, pid, failure } = &container.state {
            let (asker, pid, failure) = (*asker, *pid, failure.clone());
            return self.container_failed(id, asker, pid, failure);
        }
        let State::Running { pid, started_at } = container.state else { return };
        self.container_exits(
            id,
            Exit { pid, code: ended.code(), signal: ended.signal(), started_at, finished_at: process::now() },
        );
    }

    fn container_exits(&mut self, id: u32, exit: Exit) {
        let Some(container) = self.containers.get(id) else { return };
        container.state = State::Draining { exit, deadline: process::monotonic() + DRAIN };
        let name = container.name.clone();
        // On disk before anybody is told; a runtime that comes back reads it if this shim dies now.
        if let Err(error) = records::write(&self.folder, &name, &exit) {
            eprintln!("berth-shim: exit record of {name}: {error}");
        }
        if self.drain_log(id).is_err() {
            self.finish_container(id);
        }
    }

    /// The logger has written what there was, or had its time.
    pub(crate) fn finish_container(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let State::Draining { exit, .. } = container.state else { return };
        container.state = State::Exited { exit };
        let event = Event::ContainerExited { container: container.name.clone(), exit };
        self.tell_all(&event);
    }

    pub(crate) fn signal(&mut self, target: &Target, number: i32) -> Result<Reply, Failure> {
        let outcome = match target {
            Target::Container(name) => {
                let container = self.containers.named(name);
                let container =
                    container.ok_or_else(|| refused(Stage::UnknownTarget, format!("there is no container {name}")))?;
                container.pid().map_or(Ok(()), |pid| signal::send(pid, number))
            }
            Target::Exec(name) => {
                let pid = self
                    .execs
                    .pid(name)
                    .ok_or_else(|| refused(Stage::UnknownTarget, format!("there is no exec {name}")))?;
                crate::sessions::signal_all(pid, number)
            }
        };
        outcome.map(|()| Reply::Done).map_err(failed(Stage::UnknownTarget, "signal"))
    }

    pub(crate) fn forget_container(&mut self, name: &str) -> Result<Reply, Failure> {
        let container = self
            .containers
            .named(name)
            .ok_or_else(|| refused(Stage::UnknownTarget, format!("there is no container {name}")))?;
        if !matches!(container.state, State::Exited { .. }) {
            return Err(refused(Stage::Protocol, format!("container {name} has not exited")));
        }
        let id = container.id;
        self.containers.take(id);
        self.close_log(id);
        let _ = records::remove(&self.folder, name);
        Ok(Reply::Done)
    }
}
