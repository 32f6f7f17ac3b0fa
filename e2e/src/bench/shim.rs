//! O2 as the table of bars words it: a container's life inside the shim, by the shim's own protocol.
//!
//! The runtime makes the sandbox and compiles the plans, and is killed then, so that nothing but the shim is measured. The
//! cgroups are made beforehand, as a shim's caller does it.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use berth_cgroup::{Handles, Host, Resources};
use berth_plan::message::{Event, FromShim, Reply, Request, ToShim};
use berth_plan::{MAX_MESSAGE, PROTOCOL, codec};
use berth_sys::{memfd, seqpacket};

use super::figure::Figure;
use crate::cri::config::CGROUP;

/// Milliseconds; whoever waits longer waits for ever.
const PATIENCE: i32 = 30_000;

/// A container's life from the request to start it until the shim has forgotten it.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// In the cgroup that the shim is handed.
    pub(super) placed: Figure,
    /// Left in the shim's own cgroup: what the shim itself takes.
    pub(super) unplaced: Figure,
}

/// Runs each of `containers`, which exist in the sandbox of `folder`: half of them placed into cgroups, in turn.
pub(super) fn measure(folder: &Path, containers: &[String]) -> Result<Lives> {
    let mut shim = Shim::connect(&folder.join("shim.sock"))?;
    let host = Host::detect()?;
    let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
    for (number, container) in containers.iter().enumerate() {
        let frame = fs::read(folder.join("plans").join(container)).context("the container's plan")?;
        let plan = memfd::sealed("bench-plan", &frame)?;
        let cgroup = host.create(&format!("{CGROUP}/o2-{number}"), &Resources::default())?;
        let (handles, samples) = if number % 2 == 0 {
            (cgroup.handles()?, &mut placed)
        } else {
            (Handles { tasks: Vec::new(), v2: None }, &mut unplaced)
        };
        let start = Instant::now();
        shim.live(container, &plan, &handles)?;
        samples.push(start.elapsed());
        cgroup.remove()?;
    }
    // The first of each warms caches.
    Ok(Lives { placed: Figure::of(&placed[1..]), unplaced: Figure::of(&unplaced[1..]) })
}

struct Shim {
    socket: OwnedFd,
    number: u64,
}

impl Shim {
    fn connect(path: &Path) -> Result<Self> {
        let socket = seqpacket::connect(path).with_context(|| format!("cannot reach {}", path.display()))?;
        let mut shim = Self { socket, number: 0 };
        shim.ask(Request::Hello { protocol: PROTOCOL }, &[])?;
        Ok(shim)
    }

    fn live(&mut self, container: &str, plan: &OwnedFd, handles: &Handles) -> Result<()> {
        let descriptors: Vec<_> =
            [plan.as_fd()].into_iter().chain(handles.tasks.iter().chain(&handles.v2).map(AsFd::as_fd)).collect();
        let request = Request::Start {
            container: container.to_owned(),
            cgroup_tasks: u8::try_from(handles.tasks.len())?,
            cgroup_v2: handles.v2.is_some(),
        };
        let mut ended = self.ask(request, &descriptors)?;
        while !ended {
            match self.receive()? {
                FromShim::Event { event: Event::ContainerExited { container: of, exit } } if of == container => {
                    ensure!(exit.code == 0, "`true` ended with {}", exit.code);
                    ended = true;
                }
                other => bail!("unexpected: {other:?}"),
            }
        }
        self.ask(Request::Forget { container: container.to_owned() }, &[]).map(drop)
    }

    /// Sends a request and waits for its reply; whether a container has ended meanwhile.
    fn ask(&mut self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<bool> {
        self.number += 1;
        let bytes = codec::encode(&ToShim { number: self.number, request })?;
        seqpacket::send(self.socket.as_fd(), &bytes, descriptors)?;
        let mut ended = false;
        loop {
            match self.receive()? {
                FromShim::Event { .. } => ended = true,
                FromShim::Reply { reply: Reply::Failed(failure), .. } => bail!("the shim: {}", failure.message),
                FromShim::Reply { .. } => return Ok(ended),
            }
        }
    }

    fn receive(&self) -> Result<FromShim> {
        ensure!(seqpacket::readable(self.socket.as_fd(), PATIENCE)?, "the shim says nothing");
        let (bytes, _) = seqpacket::recv_vec(self.socket.as_fd(), MAX_MESSAGE)?;
        ensure!(!bytes.is_empty(), "the shim has closed the connection");
        Ok(codec::decode(&bytes)?)
    }
}
