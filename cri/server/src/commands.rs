//! Commands in running containers: what ExecSync and a streamed exec have in common.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use berth_cgroup::CgroupError;
use berth_cri_core::compile;
use berth_plan::codec;
use berth_plan::message::{Exit, Reply, Request, Stage, Target};
use berth_sys::signal::SIGKILL;
use berth_sys::{Mode, OFlags};
use tokio::sync::oneshot;
use tonic::Status;

use crate::cgroups::{self, Entry};
use crate::container::Container;
use crate::handlers::bundle;
use crate::rpc::invalid;
use crate::runtime::{Runtime, new_id};
use crate::shim::{Shim, ShimError};
use crate::tasks::blocking;

/// How long output is read after a command has ended: what it left in the background may hold the stream for ever.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// How long the processes of a command may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);

/// What a command's standard streams are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdio {
    /// Pipes; without `input` its standard input is the null device.
    Pipes {
        input: bool,
    },
    Terminal,
}

/// Our ends of them.
#[derive(Debug)]
pub(crate) enum Ends {
    Pipes {
        input: Option<OwnedFd>,
        output: OwnedFd,
        error: OwnedFd,
    },
    /// The terminal's master, held by nobody else: closing it hangs up.
    Terminal(OwnedFd),
}

/// A command that was started. Dropping it leaves it running, and its end unheard.
#[derive(Debug)]
pub(crate) struct Command {
    runtime: Arc<Runtime>,
    shim: Arc<Shim>,
    id: String,
    ended: oneshot::Receiver<Exit>,
}

impl Command {
    /// Starts a command in a container that runs.
    pub(crate) async fn start(
        runtime: &Arc<Runtime>,
        container: &Arc<Container>,
        arguments: Vec<String>,
        stdio: Stdio,
    ) -> Result<(Self, Ends), Status> {
        container.state().may_exec().map_err(|refusal| {
            Status::failed_precondition(format!("failed to exec in container {:?}: {refusal}", container.id))
        })?;
        let sandbox = runtime.sandbox(&container.sandbox)?;
        let shim = sandbox.shim().ok_or_else(|| Status::failed_precondition("the sandbox's shim is gone"))?;
        let id = new_id()?;
        // Before it is asked for, so that its end is not missed; forgotten again when this is dropped.
        let ended = runtime.execs.expect(&id, &sandbox.id);
        let command = Self { runtime: Arc::clone(runtime), shim, id, ended };
        let ends = command.begin(container, arguments, stdio).await?;
        runtime.execs.begun(&command.id);
        Ok((command, ends))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<Exit, Status> {
        let gone = |_| Status::unavailable("the sandbox's shim went away while the command ran");
        (&mut self.ended).await.map_err(gone)
    }

    /// Kills the command with all that it started, and waits for its end.
    pub(crate) async fn kill(mut self) {
        let target = Target::Exec(self.id.clone());
        let _ = self.shim.order(Request::Signal { target, signal: SIGKILL }, &[]).await;
        let _ = tokio::time::timeout(DEATH, self.ended()).await;
    }

    async fn begin(&self, container: &Arc<Container>, arguments: Vec<String>, stdio: Stdio) -> Result<Ends, Status> {
        let (work, inside, id) = (Arc::clone(&self.runtime), Arc::clone(container), self.id.clone());
        let prepared = blocking(move || Prepared::new(&work, &inside, &id, &arguments, stdio)).await??;
        let Entry { handles, tasks, .. } = &prepared.entry;
        let request = Request::Exec { exec: self.id.clone(), cgroup_tasks: *tasks, cgroup_v2: handles.v2.is_some() };
        let streams = prepared.theirs.iter().flatten();
        let descriptors: Vec<_> = [&prepared.plan]
            .into_iter()
            .chain(streams)
            .chain(handles.tasks.iter().chain(&handles.v2))
            .map(AsFd::as_fd)
            .collect();
        match self.shim.call_for(request, &descriptors).await {
            Ok((Reply::Started { .. }, mut given)) => match (prepared.ours, given.pop()) {
                (Some(ours), None) => Ok(ours),
                (None, Some(master)) => Ok(Ends::Terminal(master)),
                _ => Err(Status::internal("the sandbox's shim answers out of turn")),
            },
            Ok(_) => Err(Status::internal("the sandbox's shim answers out of turn")),
            Err(ShimError::Failed(failure)) => {
                let complaint = prepared.delegated.as_ref().and_then(bundle::Exec::complaint);
                let complaint = complaint.map(|complaint| format!(": {complaint}")).unwrap_or_default();
                let text = format!("failed to exec in container {:?}: {}{complaint}", container.id, failure.message);
                Err(match failure.stage {
                    Stage::UnknownTarget => Status::failed_precondition(text),
                    _ => Status::unknown(text),
                })
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.runtime.execs.forget(&self.id);
    }
}

/// What is made before the shim is asked.
struct Prepared {
    plan: OwnedFd,
    /// Standard input, output and error, as the command gets them; none with a terminal.
    theirs: Option<[OwnedFd; 3]>,
    ours: Option<Ends>,
    entry: Entry,
    /// What another runtime reads, until it has answered.
    delegated: Option<bundle::Exec>,
}

impl Prepared {
    fn new(
        runtime: &Runtime,
        container: &Container,
        id: &str,
        arguments: &[String],
        stdio: Stdio,
    ) -> Result<Self, Status> {
        let internal = |error: &dyn std::fmt::Display| Status::internal(format!("failed to prepare exec: {error}"));
        let (plan, _) = container.plan(&runtime.places).map_err(|error| internal(&error))?;
        let mut plan =
            compile::exec(&plan, id, arguments, stdio == Stdio::Terminal).map_err(|error| invalid(&error))?;
        let sandbox = runtime.sandbox(&container.sandbox)?;
        let delegated =
            sandbox.runtime.as_ref().map(|other| bundle::Exec::prepare(runtime, other, container, &mut plan));
        let delegated = delegated.transpose().map_err(|error| internal(&error))?;
        let frame = codec::encode(&plan).map_err(|error| internal(&error))?;
        let plan = berth_sys::memfd::sealed("exec-plan", &frame).map_err(|error| internal(&error))?;
        let (theirs, ours) = match stdio {
            Stdio::Terminal => (None, None),
            Stdio::Pipes { input } => {
                let (theirs, ours) = pipes(input).map_err(|error| internal(&error))?;
                (Some(theirs), Some(ours))
            }
        };
        let entry = match delegated {
            None => cgroups::of(runtime, container).map_err(|error| match error {
                // The container has ended, and nobody has heard of it yet.
                CgroupError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    Status::failed_precondition(format!("failed to exec in container {:?}: it has ended", container.id))
                }
                error => internal(&error),
            })?,
            // Another runtime brings the process into the container's cgroups.
            Some(_) => Entry::default(),
        };
        Ok(Self { plan, theirs, ours, entry, delegated })
    }
}

fn pipes(input: bool) -> io::Result<([OwnedFd; 3], Ends)> {
    let (stdin, input) = if input {
        let (reader, writer) = berth_sys::fd::pipe()?;
        (reader, Some(writer))
    } else {
        (berth_sys::fd::open("/dev/null", OFlags::RDONLY, Mode::empty())?, None)
    };
    let ((output, stdout), (error, stderr)) = (berth_sys::fd::pipe()?, berth_sys::fd::pipe()?);
    Ok(([stdin, stdout, stderr], Ends::Pipes { input, output, error }))
}
