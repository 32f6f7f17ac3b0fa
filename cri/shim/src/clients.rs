//! Connections: requests in, replies and events out, and nobody who makes the shim wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_plan::message::{Event, Failure, FromShim, Held, Reply, Request, Stage, ToShim};
use berth_plan::{MAX_MESSAGE, PROTOCOL, codec};
use berth_sys::{fd, process, seqpacket};

use crate::answer::{Answer, Asker, refused};
use crate::shim::{Key, Shim};

/// More connections than any runtime has; further ones are closed at once.
const MAX: usize = 16;

#[derive(Debug)]
struct Client {
    id: u32,
    socket: OwnedFd,
    /// It has said which protocol it speaks.
    greeted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: Vec<Client>,
}

impl Clients {
    pub(crate) fn has(&self, id: u32) -> bool {
        self.all.iter().any(|client| client.id == id)
    }

    fn get(&mut self, id: u32) -> Option<&mut Client> {
        self.all.iter_mut().find(|client| client.id == id)
    }
}

impl Shim {
    pub(crate) fn accept(&mut self) {
        let Ok(socket) = seqpacket::accept(self.listener.as_fd()) else { return };
        let trusted = seqpacket::peer(socket.as_fd()).is_ok_and(|peer| peer.uid == process::effective_user());
        if !trusted || self.clients.all.len() >= MAX || fd::set_nonblocking(socket.as_fd(), true).is_err() {
            return;
        }
        let id = self.number();
        if self.epoll.add(&socket, Key::Client(id).number()).is_ok() {
            self.clients.all.push(Client { id, socket, greeted: false });
        }
    }

    /// Reads one packet; the loop comes back for more.
    pub(crate) fn hear_client(&mut self, id: u32) {
        let Some(client) = self.clients.get(id) else { return };
        match seqpacket::recv_vec(client.socket.as_fd(), MAX_MESSAGE) {
            Ok((bytes, descriptors)) if !bytes.is_empty() => self.request(id, &bytes, descriptors),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Its end, or a request that was lost in part and whose answer would be waited for: it connects again.
            _ => self.drop_client(id),
        }
    }

    fn request(&mut self, client: u32, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        match codec::decode::<ToShim>(bytes) {
            Ok(ToShim { number, request }) => {
                let asker = Asker { client, number };
                match self.carry_out(asker, request, descriptors) {
                    Ok(Some(reply)) => self.reply(asker, reply),
                    Ok(None) => {}
                    Err(failure) => self.reply(asker, Reply::Failed(failure)),
                }
            }
            // Without its number it can't be answered: number 0 says that much.
            Err(error) => {
                let failure = refused(Stage::Protocol, format!("the request: {error}"));
                self.reply(Asker { client, number: 0 }, Reply::Failed(failure));
            }
        }
    }

    fn carry_out(&mut self, asker: Asker, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let greeted = self.clients.get(asker.client).is_some_and(|client| client.greeted);
        if !greeted && !matches!(request, Request::Hello { .. }) {
            return Err(refused(Stage::Protocol, "the first request must be Hello"));
        }
        match request {
            Request::Hello { protocol } => self.hello(asker.client, protocol).map(Some),
            Request::Sandbox { join_network, new_network, new_ipc, new_uts, shared_pid, user, hostname, sysctls } => {
                let wanted = crate::sandbox::Wanted {
                    join_network,
                    new_network,
                    new_ipc,
                    new_uts,
                    shared_pid,
                    user,
                    hostname,
                    sysctls,
                };
                self.make_sandbox(&wanted, &descriptors).map(Some)
            }
            Request::Start { container, cgroup_tasks, cgroup_v2 } => {
                let handed = Handed::split(descriptors, 1, cgroup_tasks, cgroup_v2)?;
                self.start_container(asker, container, handed)
            }
            Request::Exec { exec, cgroup_tasks, cgroup_v2 } => {
                // Without streams where it has a terminal.
                let first =
                    if descriptors.len() == 1 + usize::from(cgroup_tasks) + usize::from(cgroup_v2) { 1 } else { 4 };
                let handed = Handed::split(descriptors, first, cgroup_tasks, cgroup_v2)?;
                self.start_exec(asker, exec, &handed)
            }
            Request::Signal { target, signal } => self.signal(&target, signal).map(Some),
            Request::ReopenLog { container } => self.reopen_log(asker, &container),
            Request::Forget { container } => self.forget_container(&container).map(Some),
            Request::Shutdown => self.shut_down(asker),
            Request::Attach { container, stdin, stdout, stderr } => {
                let wanted = crate::attach::Wanted { stdin, stdout, stderr };
                self.attach(asker, &container, wanted, &descriptors)
            }
        }
    }

    fn hello(&mut self, client: u32, theirs: u16) -> Result<Reply, Failure> {
        if theirs.abs_diff(PROTOCOL) > 1 {
            return Err(refused(Stage::Protocol, format!("the shim speaks protocol {PROTOCOL}, not {theirs}")));
        }
        if let Some(client) = self.clients.get(client) {
            client.greeted = true;
        }
        let containers: Vec<Held> = self.containers.held();
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Ok(Reply::Hello {
            protocol: PROTOCOL,
            pid,
            sandbox_ready: self.sandbox_ready,
            containers,
            execs: self.execs.names(),
        })
    }

    fn shut_down(&mut self, asker: Asker) -> Answer {
        if self.containers.any_alive() || !self.execs.is_empty() {
            return Err(refused(Stage::Protocol, "containers still run"));
        }
        self.leaving = Some(asker);
        Ok(None)
    }

    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply) {
        self.reply_with(asker, reply, None);
    }

    pub(crate) fn reply_with(&mut self, asker: Asker, reply: Reply, descriptor: Option<&OwnedFd>) {
        self.send(asker.client, &FromShim::Reply { number: asker.number, reply }, descriptor);
    }

    /// Tells every client that has said hello.
    pub(crate) fn tell_all(&mut self, event: &Event) {
        let greeted: Vec<u32> =
            self.clients.all.iter().filter(|client| client.greeted).map(|client| client.id).collect();
        for id in greeted {
            self.send(id, &FromShim::Event { event: event.clone() }, None);
        }
    }

    /// The last word, before the process ends.
    pub(crate) fn say_goodbye(&mut self) {
        self.end_logger();
        self.pod.end();
        let _ = self.remove_in_folder("init.pid");
        if let Some(asker) = self.leaving {
            self.reply(asker, Reply::Done);
        }
    }

    fn send(&mut self, id: u32, message: &FromShim, descriptor: Option<&OwnedFd>) {
        let Some(client) = self.clients.get(id) else { return };
        let Ok(bytes) = codec::encode(message) else { return };
        let descriptor = descriptor.map(AsFd::as_fd);
        // A full queue means that the client hangs: it will connect again, and ask what it missed.
        if seqpacket::send(client.socket.as_fd(), &bytes, descriptor.as_slice()).is_err() {
            self.drop_client(id);
        }
    }

    fn drop_client(&mut self, id: u32) {
        if let Some(at) = self.clients.all.iter().position(|client| client.id == id) {
            let client = self.clients.all.swap_remove(at);
            let _ = self.epoll.remove(&client.socket);
            self.cancel_openings(id);
        }
    }
}

/// The descriptors of a [`Request::Start`] or [`Request::Exec`].
#[derive(Debug)]
pub(crate) struct Handed {
    /// The plan, and an exec's standard streams.
    pub(crate) first: Vec<OwnedFd>,
    pub(crate) cgroup_tasks: Vec<OwnedFd>,
    pub(crate) cgroup_v2: Option<OwnedFd>,
}

impl Handed {
    fn split(mut descriptors: Vec<OwnedFd>, first: usize, procs: u8, v2: bool) -> Result<Self, Failure> {
        let wanted = first + usize::from(procs) + usize::from(v2);
        if descriptors.len() != wanted {
            return Err(refused(
                Stage::Protocol,
                format!("{wanted} descriptors were promised and {} came", descriptors.len()),
            ));
        }
        let cgroup_v2 = if v2 { descriptors.pop() } else { None };
        let cgroup_tasks = descriptors.split_off(first);
        Ok(Self { first: descriptors, cgroup_tasks, cgroup_v2 })
    }
}
