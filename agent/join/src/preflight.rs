//! What would be in the way, looked at before anybody is asked.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::journal::{Journal, Phase};
use crate::{JoinError, Paths, Request};

/// Where the agent's API listens.
const PORT: u16 = 10250;

/// How this machine stands to clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// To none.
    Free,
    /// A join began and did not end: to be undone.
    Begun(Journal),
    /// A join ended but for the agent's start: to be gone on with.
    Starting(Journal),
}

/// Finds out.
///
/// # Errors
/// [`JoinError::Joined`], [`JoinError::Leaving`] and [`JoinError::Foreign`]: nothing to be begun here.
pub fn standing(paths: &Paths) -> Result<Standing, JoinError> {
    match Journal::load(paths)? {
        Some(journal) => match journal.phase {
            Phase::Joining => Ok(Standing::Begun(journal)),
            Phase::Starting => Ok(Standing::Starting(journal)),
            Phase::Joined => Err(JoinError::Joined { cluster: journal.describe(), node: journal.node }),
            Phase::Leaving => Err(JoinError::Leaving),
        },
        None if paths.kubeconfig().exists() => Err(JoinError::Foreign { file: paths.kubeconfig() }),
        None => Ok(Standing::Free),
    }
}

/// Something in the way, by the name that kubeadm's check of it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// For `--ignore-preflight-errors`.
    pub name: String,
    /// What, and what to do.
    pub reason: String,
}

/// What of the machine is in the way of `request`.
pub fn obstacles(paths: &Paths, request: &Request) -> Vec<Found> {
    let mut found = Vec::new();
    let mut say = |name: String, reason: String| found.push(Found { name, reason });
    for path in [paths.bootstrap_kubeconfig(), paths.place(&request.authority)] {
        if path.exists() {
            let name = format!("FileAvailable-{}", path.display().to_string().replace('/', "-"));
            say(name, format!("{} already exists: of a former node? Remove it (kubeadm reset does)", path.display()));
        }
    }
    if let Err(error) = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))
        && error.kind() == std::io::ErrorKind::AddrInUse
    {
        say(format!("Port-{PORT}"), format!("Port {PORT} is in use: another kubelet runs here, stop it first"));
    }
    if let Some(socket) = &request.cri_socket {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        if !std::fs::metadata(paths.place(Path::new(path))).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            let reason =
                format!("{socket} is not there: start that runtime, or leave criSocket out to use Berth's own");
            say("CRI".to_owned(), reason);
        }
    }
    found
}

/// Sorts obstacles into those that stop and those that are only told.
///
/// # Errors
/// [`JoinError::Preflight`] with all that stop.
pub fn judge(found: Vec<Found>, ignored: &BTreeSet<String>) -> Result<Vec<Found>, JoinError> {
    let is_ignored = |found: &Found| ignored.contains("all") || ignored.contains(&found.name.to_lowercase());
    let (told, stopping): (Vec<_>, Vec<_>) = found.into_iter().partition(is_ignored);
    if stopping.is_empty() {
        return Ok(told);
    }
    let join = |parts: Vec<String>, with: &str| parts.join(with);
    Err(JoinError::Preflight {
        obstacles: join(
            stopping.iter().map(|found| format!("[ERROR {}]: {}", found.name, found.reason)).collect(),
            "; ",
        ),
        names: join(stopping.iter().map(|found| found.name.clone()).collect(), ","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Found {
        Found { name: name.to_owned(), reason: "is so".to_owned() }
    }

    #[test]
    fn obstacles_stop_unless_they_are_ignored_by_name() {
        let ignored = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(judge(vec![found("Port-10250")], &ignored(&["port-10250"])).expect("told"), [found("Port-10250")]);
        judge(vec![found("Port-10250")], &ignored(&["all"])).expect("told");
        let error = judge(vec![found("Port-10250"), found("CRI")], &ignored(&["swap"])).expect_err("stops").to_string();
        assert_eq!(
            error,
            "[preflight] [ERROR Port-10250]: is so; [ERROR CRI]: is so; `--ignore-preflight-errors=Port-10250,CRI` goes on \
             all the same"
        );
    }

    #[test]
    fn a_former_node_is_recognised() {
        let root = tempfile::tempdir().expect("folder");
        let paths = Paths::below(root.path());
        assert_eq!(standing(&paths).expect("free"), Standing::Free);
        std::fs::create_dir_all(root.path().join("etc/kubernetes")).expect("folder");
        std::fs::write(paths.kubeconfig(), "").expect("written");
        assert!(standing(&paths).expect_err("foreign").to_string().contains("kubeadm reset"));
        std::fs::create_dir_all(root.path().join("var/lib/berth")).expect("folder");
        for (phase, refused) in [
            (Phase::Joining, None),
            (Phase::Starting, None),
            (Phase::Joined, Some("berth leave")),
            (Phase::Leaving, Some("again")),
        ] {
            let journal = Journal { phase, ..Journal::new("kubernetes", "https://a:1", "n") };
            journal.save(&paths).expect("saved");
            match (standing(&paths), refused) {
                (Ok(Standing::Begun(found)), None) => {
                    assert_eq!((found.phase, phase), (Phase::Joining, Phase::Joining))
                }
                (Ok(Standing::Starting(found)), None) => {
                    assert_eq!((found.phase, phase), (Phase::Starting, Phase::Starting))
                }
                (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
                (other, _) => panic!("{phase:?}: {other:?}"),
            }
        }
        std::fs::write(paths.journal(), "{\"version\": 9}").expect("written");
        assert!(standing(&paths).expect_err("another version").to_string().contains("join.json"));
    }
}
