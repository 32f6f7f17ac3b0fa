//! What a service tells systemd, and what systemd tells of the service's log. Both are fixed by sd_notify(3) and
//! systemd.exec(5), and need no library.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Tells systemd that this service (`Type=notify`) does its work from now on. Without systemd nothing happens.
pub(crate) fn ready() {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = tell(socket.as_bytes(), b"READY=1") {
        // systemd will end this service after its TimeoutStartSec=: the log must say why.
        tracing::error!(socket = %Path::new(&socket).display(), %error, "cannot tell systemd that this service is ready");
    }
}

/// Whether this process' stderr leads to the journal, which has times and levels of its own.
pub(crate) fn logs_to_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    // The variable is inherited, too, by a process whose stderr was turned elsewhere.
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// A path, or with `@` in front a name in the abstract namespace.
fn tell(socket: &[u8], words: &[u8]) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(socket)))?,
    };
    UnixDatagram::unbound()?.send_to_addr(words, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_by_path_and_by_abstract_name() {
        let name = format!("berth-test-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let abstract_one = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, listener) in [
            (path.as_os_str().as_bytes().to_vec(), UnixDatagram::bind(&path)),
            (format!("@{name}").into_bytes(), UnixDatagram::bind_addr(&abstract_one)),
        ] {
            let listener = listener.expect("a socket");
            tell(&socket, b"READY=1").expect("told");
            let mut buffer = [0; 16];
            let length = listener.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..length], b"READY=1");
        }
        std::fs::remove_file(&path).expect("the socket");
        tell(path.as_os_str().as_bytes(), b"READY=1").expect_err("nobody listens");
    }
}
