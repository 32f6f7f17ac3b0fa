//! Hears when files change.

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// A certificate and its key change one after the other; one reading answers both.
const SETTLE: Duration = Duration::from_millis(100);

/// Some files, watched through their folders: they are replaced rather than written to, and so are links on their way.
#[derive(Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Files {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let fd = if paths.is_empty() { None } else { open().ok() };
        Self { paths, fd }
    }

    /// Begins to listen; to be called before the files are read. Whether all can be heard.
    pub(crate) fn watch(&self) -> bool {
        let Some(fd) = &self.fd else { return self.paths.is_empty() };
        use inotify::WatchFlags as W;
        let flags =
            W::CLOSE_WRITE | W::CREATE | W::DELETE | W::MOVED_FROM | W::MOVED_TO | W::DELETE_SELF | W::MOVE_SELF;
        // The file itself, every link on its way, and where they lead to.
        let on_the_way = |path: &PathBuf| {
            let links = path.ancestors().filter(|at| at.is_symlink()).map(Path::to_path_buf);
            links.chain(std::fs::canonicalize(path).ok()).chain([path.clone()]).collect::<Vec<_>>()
        };
        let folders = self.paths.iter().flat_map(on_the_way).map(|path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        });
        let mut all = true;
        for folder in folders {
            // Adding one twice changes nothing.
            all &= inotify::add_watch(fd, &folder, flags).is_ok();
        }
        all
    }

    /// Returns when something changed in a folder of theirs, at the latest after `limit`.
    pub(crate) async fn changed(&self, limit: Duration) {
        let Some(fd) = &self.fd else { return sleep(limit).await };
        if let Ok(Ok(mut guard)) = timeout(limit, fd.readable()).await {
            guard.clear_ready();
            sleep(SETTLE).await;
            drain(fd);
        }
    }
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    #[expect(deprecated, reason = "unsound for types that swap their descriptor; an OwnedFd does not")]
    AsyncFd::new(fd)
}

/// Takes all events off the queue; which they were does not matter, everything is read anew.
fn drain(fd: &AsyncFd<OwnedFd>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
    while reader.next().is_ok() {}
}
