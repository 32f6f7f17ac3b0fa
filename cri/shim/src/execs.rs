//! Exec'd processes: forgotten as soon as they end and everybody was told.

use std::os::fd::AsFd;

use berth_oci::Starting;
use berth_oci::launch::{self, Handed as Launch};
use berth_plan::codec;
use berth_plan::message::{Event, Exit, Failure, Reply, Stage};
use berth_sys::pidfd::{Ended, PidFd};
use berth_sys::{process, signal};

use crate::answer::{Answer, Asker, failed, refused};
use crate::clients::Handed;
use crate::heads;
use crate::records;
use crate::shim::{Key, Shim};

/// So many that [`Reply::Hello`] fits into a message.
const MAX: usize = 128;

#[derive(Debug)]
struct Exec {
    id: u32,
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Starting { asker: Asker, starting: Starting },
    Running { pid: i32, started_at: i64 },
}

impl Exec {
    fn pid(&self) -> i32 {
        match &self.state {
            State::Starting { starting, .. } => starting.pid,
            State::Running { pid, .. } => *pid,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Execs {
    all: Vec<Exec>,
}

impl Execs {
    pub(crate) fn of_pid(&self, pid: i32) -> Option<u32> {
        self.all.iter().find(|exec| exec.pid() == pid).map(|exec| exec.id)
    }

    pub(crate) fn pid(&self, name: &str) -> Option<i32> {
        self.all.iter().find(|exec| exec.name == name).map(Exec::pid)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all.iter().map(|exec| exec.name.clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// As [`crate::containers::Containers::learn_heirs`].
    pub(crate) fn learn_heirs(&mut self) {
        for exec in &mut self.all {
            if let State::Starting { starting, .. } = &mut exec.state {
                starting.refresh();
            }
        }
    }

    fn get(&mut self, id: u32) -> Option<&mut Exec> {
        self.all.iter_mut().find(|exec| exec.id == id)
    }

    fn take(&mut self, id: u32) -> Option<Exec> {
        let at = self.all.iter().position(|exec| exec.id == id)?;
        Some(self.all.swap_remove(at))
    }
}

impl Shim {
    pub(crate) fn start_exec(&mut self, asker: Asker, name: String, handed: &Handed) -> Answer {
        if !records::is_name(&name) {
            return Err(refused(Stage::Protocol, format!("{name:?} is no exec's id")));
        }
        if self.execs.pid(&name).is_some() {
            return Err(refused(Stage::AlreadyExists, format!("exec {name} exists")));
        }
        if self.execs.all.len() >= MAX {
            return Err(refused(Stage::Protocol, format!("a sandbox has {MAX} execs at a time")));
        }
        let Some((plan, streams)) = handed.first.split_first() else {
            return Err(refused(Stage::Protocol, "there is no plan"));
        };
        let head = heads::read(plan.as_fd(), codec::exec_head)?;
        if head.id != name {
            return Err(refused(Stage::Protocol, "the plan is another exec's"));
        }
        let stdio = match (head.terminal, streams) {
            (true, []) => [self.null.as_fd(); 3],
            (false, [input, output, error]) => [input.as_fd(), output.as_fd(), error.as_fd()],
            _ => return Err(refused(Stage::Protocol, "an exec needs three streams, or none with a terminal")),
        };
        let target = self.containers.running_pid(&head.container);
        let target = target
            .ok_or_else(|| refused(Stage::UnknownTarget, format!("container {} is not running", head.container)))?;
        // Our child and not reaped, so the number is its own.
        let target = PidFd::open(target).map_err(failed(Stage::UnknownTarget, "open the container's process"))?;
        let launch = Launch {
            plan: plan.as_fd(),
            stdio,
            cgroup_tasks: &handed.cgroup_tasks,
            cgroup_v2: handed.cgroup_v2.as_ref().map(AsFd::as_fd),
        };
        let starting = match head.delegate {
            None => launch::exec(&target, self.pid_namespace.as_fd(), &launch)?,
            Some(_) => launch::delegate(&launch)?,
        };
        let id = self.number();
        if let Err(error) = self.epoll.add(&starting, Key::Exec(id).number()) {
            let _ = signal::send(starting.pid, signal::SIGKILL);
            return Err(failed(Stage::Fork, "watch the child")(error));
        }
        self.execs.all.push(Exec { id, name, state: State::Starting { asker, starting } });
        Ok(None)
    }

    /// The child has reported.
    pub(crate) fn hear_exec(&mut self, id: u32) {
        let Some(Exec { state: State::Starting { starting, .. }, .. }) = self.execs.get(id) else { return };
        match starting.outcome() {
            None => {}
            Some(Ok(())) => self.exec_runs(id),
            Some(Err(failure)) => {
                // It is about to leave by itself; its number is ours until it is reaped.
                let _ = signal::send(starting.pid, signal::SIGKILL);
                self.exec_failed(id, failure);
            }
        }
    }

    fn exec_failed(&mut self, id: u32, failure: Failure) {
        let Some(Exec { state: State::Starting { asker, starting }, .. }) = self.execs.take(id) else { return };
        let _ = self.epoll.remove(&starting);
        self.reply(asker, Reply::Failed(failure));
    }

    fn exec_runs(&mut self, id: u32) {
        let Some(exec) = self.execs.get(id) else { return };
        let (pid, started_at) = (exec.pid(), process::now());
        let State::Starting { asker, mut starting } =
            std::mem::replace(&mut exec.state, State::Running { pid, started_at })
        else {
            return;
        };
        let _ = self.epoll.remove(&starting);
        // A terminal's master is the asker's alone: when it is gone, the processes are hung up.
        let terminal = starting.take_terminal();
        self.reply_with(asker, Reply::Started { pid, started_at }, terminal.as_ref());
    }

    /// The process was reaped.
    pub(crate) fn exec_ended(&mut self, id: u32, ended: Ended) {
        if let Some(Exec { state: State::Starting { starting, .. }, .. }) = self.execs.get(id) {
            // It ended before its report was read.
            let silent = || Err(refused(Stage::Fork, "the process ended without a report"));
            match starting.outcome().unwrap_or_else(silent) {
                Ok(()) => self.exec_runs(id),
                Err(failure) => return self.exec_failed(id, failure),
            }
        }
        let Some(Exec { name, state: State::Running { pid, started_at }, .. }) = self.execs.take(id) else { return };
        let exit = Exit { pid, code: ended.code(), signal: ended.signal(), started_at, finished_at: process::now() };
        self.tell_all(&Event::ExecExited { exec: name, exit });
    }
}
