//! The folder of reservations.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_cni::CniError;
use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "lock";
const LAST: &str = "last_reserved_ip.";
const LINE_BREAK: &str = "\r\n";

/// The folder, locked against everybody else until this is dropped.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    _lock: File,
}

/// One address and who holds it.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) address: IpAddr,
    /// As in the file: `CONTAINER\r\nIFNAME`, or only `CONTAINER` from plugins before 0.8. Empty when a crash came
    /// between creation and content.
    holder: String,
}

impl Reservation {
    pub(super) fn is_of(&self, id: &str, ifname: &str) -> bool {
        match self.holder.split_once(LINE_BREAK) {
            Some((holder, interface)) => holder == id && interface == ifname,
            None => self.holder == id,
        }
    }
}

impl Store {
    /// Opens the folder, which is made if need be.
    pub(super) fn open(dir: &Path) -> Result<Self, CniError> {
        fs::create_dir_all(dir).map_err(|error| CniError::io(dir.display(), error))?;
        let path = dir.join(LOCK);
        let lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
        Self::locked(dir, lock)
    }

    /// Opens the folder if there is one.
    pub(super) fn open_existing(dir: &Path) -> Result<Option<Self>, CniError> {
        if dir.is_dir() { Self::open(dir).map(Some) } else { Ok(None) }
    }

    fn locked(dir: &Path, lock: io::Result<File>) -> Result<Self, CniError> {
        let locked = lock.and_then(|lock| {
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        });
        let lock = locked.map_err(|error| CniError::io(dir.join(LOCK).display(), error))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Every reservation. An address without a holder is one that a crash interrupted: whoever wrote it held the lock.
    pub(super) fn reservations(&self) -> Result<Vec<Reservation>, CniError> {
        let failed = |error| CniError::io(self.dir.display(), error);
        let mut reservations = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let holder = fs::read_to_string(entry.path()).map_err(failed)?.trim().to_owned();
            if holder.is_empty() {
                self.remove(address)?;
            } else {
                reservations.push(Reservation { address, holder });
            }
        }
        Ok(reservations)
    }

    /// The address that was given out last of a range set.
    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.dir.join(format!("{LAST}{set}"))).ok()?.trim().parse().ok()
    }

    /// Notes that an attachment holds an address.
    pub(super) fn reserve(&self, address: IpAddr, id: &str, ifname: &str, set: usize) -> Result<(), CniError> {
        let path = self.dir.join(address.to_string());
        let failed = |error| CniError::io(path.display(), error);
        berth_effect::run("address-reserve", || {
            let mut file = File::options().write(true).create_new(true).mode(0o644).open(&path)?;
            file.write_all(format!("{id}{LINE_BREAK}{ifname}").as_bytes()).inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })
        })
        .map_err(failed)?;
        // Only a hint of where to go on: worth no flush, and no loss when it is stale.
        fs::write(self.dir.join(format!("{LAST}{set}")), address.to_string()).map_err(failed)
    }

    /// Gives back the addresses of the reservations that are chosen.
    pub(super) fn release(
        &self,
        reservations: &[Reservation],
        chosen: impl Fn(&Reservation) -> bool,
    ) -> Result<(), CniError> {
        reservations.iter().filter(|reservation| chosen(reservation)).try_for_each(|held| self.remove(held.address))
    }

    /// Removes the folder when no address is reserved; whether it is gone.
    pub(super) fn remove_unless_used(self) -> Result<bool, CniError> {
        if !self.reservations()?.is_empty() {
            return Ok(false);
        }
        let failed = |error| CniError::io(self.dir.display(), error);
        berth_effect::run("address-store-remove", || fs::remove_dir_all(&self.dir)).map_err(failed)?;
        // The folder of all networks, when this was the last; it belongs to others otherwise.
        if let Some(parent) = self.dir.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(true)
    }

    fn remove(&self, address: IpAddr) -> Result<(), CniError> {
        let path = self.dir.join(address.to_string());
        match berth_effect::run("address-release", || fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CniError::io(path.display(), error)),
            _ => Ok(()),
        }
    }
}
