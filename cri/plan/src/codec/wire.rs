//! How each type lies in a frame.

use crate::container::{
    Capabilities, Container, ContainerHead, Delegate, Device, DeviceKind, Exec, ExecHead, IdRange, Mount, MountSource,
    NewNamespaces, PidFrom, Process, Rlimit, Rootfs, Stdin,
};
use crate::message::{Event, Exit, Failure, FromShim, Held, Reply, Request, Stage, Target, ToShim};

use super::{DecodeError, EncodeError, MAX_ITEMS};

/// A frame being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    too_many: bool,
}

impl Writer {
    pub(super) fn finish(self) -> Result<Vec<u8>, EncodeError> {
        if self.too_many { Err(EncodeError::TooMany) } else { Ok(self.bytes) }
    }

    /// A length in 32 bits. One that does not fit makes a frame past every limit, which `encode` refuses.
    fn length(&mut self, length: usize) {
        u32::try_from(length).unwrap_or(u32::MAX).put(self);
    }
}

/// A frame being read: what is left of it.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(u32::get(self)?).map_err(|_| DecodeError::Truncated)
    }
}

/// Something with a place in a frame.
pub trait Wire: Sized {
    fn put(&self, writer: &mut Writer);
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, writer: &mut Writer) {
                writer.bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = reader.take(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::Truncated)?))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, writer: &mut Writer) {
        u8::from(*self).put(writer);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Value),
        }
    }
}

impl Wire for String {
    fn put(&self, writer: &mut Writer) {
        writer.length(self.len());
        writer.bytes.extend_from_slice(self.as_bytes());
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.length()?;
        let bytes = reader.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::Text)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, writer: &mut Writer) {
        writer.too_many |= self.len() > MAX_ITEMS;
        writer.length(self.len());
        for item in self {
            item.put(writer);
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.length()?;
        if length > MAX_ITEMS {
            return Err(DecodeError::TooMany);
        }
        // Each entry takes a byte at least, so no promise of a length makes us allocate more than the frame holds.
        if length > reader.rest.len() {
            return Err(DecodeError::Truncated);
        }
        (0..length).map(|_| T::get(reader)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, writer: &mut Writer) {
        self.is_some().put(writer);
        if let Some(value) = self {
            value.put(writer);
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::get(reader)? { T::get(reader).map(Some) } else { Ok(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, writer: &mut Writer) {
        self.0.put(writer);
        self.1.put(writer);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::get(reader)?, B::get(reader)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, writer: &mut Writer) {
        self.0.put(writer);
        self.1.put(writer);
        self.2.put(writer);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::get(reader)?, B::get(reader)?, C::get(reader)?))
    }
}

/// A struct: its fields in the order given here, which need not be that of its declaration.
macro_rules! structure {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl Wire for $name {
            fn put(&self, writer: &mut Writer) {
                $(self.$field.put(writer);)*
            }

            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $(let $field = Wire::get(reader)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// An enum: its variants' numbers, then their fields. A tuple's field is written as `name @ 0`.
macro_rules! variants {
    ($name:ident { $($number:literal => $variant:ident $({ $($field:ident $(@ $position:tt)?),* })?),* $(,)? }) => {
        impl Wire for $name {
            fn put(&self, writer: &mut Writer) {
                match self {
                    $(variants!(@pattern $variant $($($field $(@ $position)?),*)?) => {
                        let number: u8 = $number;
                        number.put(writer);
                        $($($field.put(writer);)*)?
                    })*
                }
            }

            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match u8::get(reader)? {
                    $($number => {
                        $($(let $field = Wire::get(reader)?;)*)?
                        Ok(variants!(@pattern $variant $($($field $(@ $position)?),*)?))
                    })*
                    _ => Err(DecodeError::Value),
                }
            }
        }
    };
    (@pattern $variant:ident) => { Self::$variant {} };
    (@pattern $variant:ident $field:ident @ 0) => { Self::$variant($field) };
    (@pattern $variant:ident $($field:ident),+) => { Self::$variant { $($field),+ } };
}

structure!(NewNamespaces { mount, pid, cgroup, ipc, uts, net });
variants!(Rootfs { 0 => Overlay { lower, upper, work }, 1 => Folder { path } });
variants!(PidFrom { 0 => Shim, 1 => Pod, 2 => Container { name @ 0 } });
structure!(IdRange { host, length });
structure!(Mount { source, destination, attr_set, attr_clear, recursive_attr, propagation, idmap });
variants!(MountSource {
    0 => Filesystem { kind, options },
    1 => Bind { path, recursive },
    2 => Cgroup { hierarchies, links },
    3 => Image { layers, sub_path },
});
structure!(Device { path, kind, major, minor, mode, uid, gid });
variants!(DeviceKind { 0 => Character, 1 => Block });
structure!(Capabilities { bounding, effective, permitted, inheritable, ambient });
structure!(Rlimit { resource, soft, hard });
variants!(Stdin { 0 => None, 1 => Open, 2 => Once });
// The heads below read the first fields of these three: keep them first, and in this order.
structure!(Process {
    terminal,
    args,
    env,
    cwd,
    uid,
    gid,
    groups,
    umask,
    capabilities,
    no_new_privileges,
    seccomp,
    rlimits,
    oom_score_adj,
    apparmor,
});
structure!(Container {
    id,
    namespaces,
    pid_from,
    user,
    log_path,
    stdin,
    process,
    hostname,
    rootfs,
    readonly_rootfs,
    root_propagation,
    mounts,
    devices,
    links,
    sysctls,
    masked_paths,
    readonly_paths,
    delegate,
});
structure!(Delegate { folder, commands, pid_file, console });
structure!(Exec { id, container, delegate, process, user });
structure!(ContainerHead { id, namespaces, pid_from, user, log_path, stdin, terminal });
structure!(ExecHead { id, container, delegate, terminal });

structure!(ToShim { number, request });
variants!(FromShim { 0 => Reply { number, reply }, 1 => Event { event } });
variants!(Request {
    0 => Hello { protocol },
    1 => Sandbox { join_network, new_network, new_ipc, new_uts, shared_pid, user, hostname, sysctls },
    2 => Start { container, cgroup_tasks, cgroup_v2 },
    3 => Exec { exec, cgroup_tasks, cgroup_v2 },
    4 => Signal { target, signal },
    5 => ReopenLog { container },
    6 => Forget { container },
    7 => Shutdown,
    8 => Attach { container, stdin, stdout, stderr },
});
variants!(Target { 0 => Container { name @ 0 }, 1 => Exec { name @ 0 } });
variants!(Reply {
    0 => Hello { protocol, pid, sandbox_ready, containers, execs },
    1 => Done,
    2 => Started { pid, started_at },
    3 => Failed { failure @ 0 },
    4 => Attached { terminal, stdin },
});
structure!(Failure { stage, errno, message });
variants!(Stage {
    0 => Protocol, 1 => UnknownTarget, 2 => AlreadyExists, 3 => Cgroup, 4 => Namespace, 5 => Rootfs, 6 => Mount, 7 => Device, 8 => Sysctl,
    9 => Paths, 10 => Log, 11 => Rlimit, 12 => User, 13 => Capabilities, 14 => Seccomp, 15 => Cwd, 16 => Execve, 17 => Fork, 18 => Delegate,
});
variants!(Event { 0 => ContainerExited { container, exit }, 1 => ExecExited { exec, exit } });
structure!(Exit { pid, code, signal, started_at, finished_at });
variants!(Held { 0 => Running { container, pid, started_at }, 1 => Exited { container, exit } });
