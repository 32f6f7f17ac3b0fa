//! Writing what a join needs, and taking it away again whatever has happened in between.
//!
//! The journal is written before anything is changed and removed after everything is undone; every step in between can be
//! repeated. So a kill at any moment leaves a journal whose entries say what may be there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_effect::record;

use crate::journal::{Entry, Journal, Phase, Unit};
use crate::plan::aside;
use crate::{File, JoinError, Lock, Paths, Plan, systemd};

/// A join that was begun on this machine.
#[derive(Debug)]
pub struct Installation<'a> {
    paths: &'a Paths,
    journal: Journal,
}

impl<'a> Installation<'a> {
    /// Writes the plan's files, the journal first. What fails takes everything back.
    ///
    /// `told` is called before each file.
    ///
    /// # Errors
    /// [`JoinError::Io`]; nothing is left then.
    pub fn begin(paths: &'a Paths, _lock: &Lock, plan: &Plan, mut told: impl FnMut(&File)) -> Result<Self, JoinError> {
        let mut journal = plan.journal.clone();
        let written = plan.files.iter().map(|file| file.path.clone());
        let files = written.chain([paths.kubeconfig()]);
        journal.files = files.map(|path| Entry { kept: path.exists(), path }).collect();
        journal.folders = missing(journal.files.iter().map(|entry| entry.path.as_path()), &paths.certificates());
        journal.certificates_before = names(&paths.certificates());
        let installation = Self { paths, journal };
        let written = installation.journal.save(paths).and_then(|()| installation.write(plan, &mut told));
        match written {
            Ok(()) => Ok(installation),
            Err(error) => Err(installation.failed(error)),
        }
    }

    /// One that is there already.
    pub fn resume(paths: &'a Paths, journal: Journal) -> Self {
        Self { paths, journal }
    }

    /// What it knows.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn write(&self, plan: &Plan, told: &mut impl FnMut(&File)) -> Result<(), JoinError> {
        for folder in self.journal.folders.iter().filter(|folder| !folder.is_dir()) {
            berth_effect::run("join-folder-make", || fs::DirBuilder::new().mode(0o755).create(folder))
                .map_err(JoinError::io("making the folder", folder))?;
        }
        for (file, entry) in plan.files.iter().zip(&self.journal.files) {
            told(file);
            put(&file.path, &file.content, file.public, entry.kept)?;
        }
        Ok(())
    }

    /// Notes how far it has come.
    ///
    /// # Errors
    /// [`JoinError::Io`]; the phase before still counts.
    pub fn advance(&mut self, phase: Phase) -> Result<(), JoinError> {
        let next = Journal { phase, ..self.journal.clone() };
        next.save(self.paths)?;
        self.journal = next;
        Ok(())
    }

    /// The node has its own credentials: those of the bootstrap go (as with kubeadm, so that the token does not lie about),
    /// and from here on another attempt goes on instead of going back. With systemd the journal names the unit, whose file
    /// [`Installation::start`] writes.
    ///
    /// # Errors
    /// [`JoinError::Io`].
    pub fn credentials_are_there(&mut self, with_systemd: bool) -> Result<(), JoinError> {
        let bootstrap = self.paths.bootstrap_kubeconfig();
        record::remove(&bootstrap).map_err(JoinError::io("removing", &bootstrap))?;
        if with_systemd {
            let own = self.paths.units().join(systemd::UNIT);
            let file = (!systemd::is_packaged(self.paths)).then_some(own);
            if let Some(path) = &file {
                self.journal.files.push(Entry { path: path.clone(), kept: path.exists() });
            }
            self.journal.unit = Some(Unit { name: systemd::UNIT.to_owned(), file });
        }
        self.advance(Phase::Starting)
    }

    /// Writes the unit's file, if it is ours to write. Can be repeated.
    fn write_unit(&self, program: &Path) -> Result<(), JoinError> {
        let Some(path) = self.journal.unit.as_ref().and_then(|unit| unit.file.as_ref()) else { return Ok(()) };
        let kept = self.journal.files.iter().any(|entry| entry.path == *path && entry.kept);
        put(path, &systemd::text(program), true, kept && !aside(path).exists() && path.exists())
    }

    /// Starts the agent by systemd, now and at every boot, and notes that the node has joined. Without a unit only the
    /// latter. Can be repeated.
    ///
    /// # Errors
    /// [`JoinError::Systemd`], [`JoinError::Io`].
    pub fn start(&mut self, program: &Path) -> Result<(), JoinError> {
        if let Some(unit) = self.journal.unit.clone() {
            self.write_unit(program)?;
            systemd::systemctl(&["daemon-reload"])?;
            systemd::systemctl(&["enable", "--now", &unit.name])?;
        }
        self.advance(Phase::Joined)
    }

    /// Stops the unit, if there is one, now and for every boot.
    ///
    /// # Errors
    /// [`JoinError::Systemd`].
    pub fn stop_unit(&self) -> Result<(), JoinError> {
        match &self.journal.unit {
            // systemctl refuses to disable what has no file: not written yet, or removed by an attempt that died since.
            Some(unit) if systemd::is_running(self.paths) && unit.file.as_ref().is_none_or(|file| file.exists()) => {
                systemd::systemctl(&["disable", "--now", &unit.name])
            }
            _ => Ok(()),
        }
    }

    /// Undoes everything after `error`, and returns it with what could not be undone.
    fn failed(self, error: JoinError) -> JoinError {
        match self.undo().into_iter().next() {
            None => error,
            // The cause counts; the journal is still there, so that the next attempt cleans up.
            Some(rest) => JoinError::request("join", format!("{error}; and not everything could be undone: {rest}")),
        }
    }

    /// Takes away everything that the journal names, and then the journal. Goes on past what fails, and returns that; the
    /// journal stays then.
    #[must_use = "what could not be undone must be told"]
    pub fn undo(self) -> Vec<JoinError> {
        let mut errors = Vec::new();
        let mut note = |outcome: Result<(), JoinError>| errors.extend(outcome.err());
        note(self.stop_unit());
        for entry in self.journal.files.iter().rev() {
            note(restore(entry));
        }
        if self.journal.unit.is_some() && systemd::is_running(self.paths) {
            note(systemd::systemctl(&["daemon-reload"]));
        }
        let certificates = self.paths.certificates();
        for name in names(&certificates).into_iter().filter(|name| is_certificate(name)) {
            if !self.journal.certificates_before.contains(&name) {
                let path = certificates.join(name);
                note(record::remove(&path).map_err(JoinError::io("removing", path)));
            }
        }
        let folders = self.journal.files.iter().filter_map(|entry| entry.path.parent());
        for folder in folders.chain([certificates.as_path()]).chain(self.paths.journal().parent()) {
            remove_torn(folder);
        }
        for folder in self.journal.folders.iter().rev() {
            remove_empty(folder);
        }
        if errors.is_empty() {
            let journal = self.paths.journal();
            errors.extend(record::remove(&journal).map_err(JoinError::io("removing", journal)).err());
        }
        errors
    }
}

/// Writes a file, for everybody to read where it is `public`; the one that is there is set aside first where `keep` says so.
fn put(path: &Path, content: &str, public: bool, keep: bool) -> Result<(), JoinError> {
    if keep {
        berth_effect::run("join-file-keep", || fs::rename(path, aside(path)))
            .map_err(JoinError::io("setting the former file aside", path))?;
    }
    record::write_durable(path, content.as_bytes()).map_err(JoinError::io("writing", path))?;
    if public {
        berth_effect::run("join-file-publish", || fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
            .map_err(JoinError::io("setting the permissions", path))?;
    }
    Ok(())
}

/// Folders above `files` and down to `certificates` that are not there, outermost first, each once.
fn missing<'p>(files: impl Iterator<Item = &'p Path>, certificates: &'p Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in files.filter_map(Path::parent).chain([certificates]) {
        let mut above: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        above.reverse();
        for folder in above {
            if !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_path_buf());
            }
        }
    }
    folders
}

/// The state before a file of ours stood in its place.
fn restore(entry: &Entry) -> Result<(), JoinError> {
    let (path, kept) = (&entry.path, aside(&entry.path));
    if !entry.kept {
        return record::remove(path).map_err(JoinError::io("removing", path));
    }
    if !kept.is_file() {
        // Not yet set aside, or put back already.
        return Ok(());
    }
    berth_effect::run("join-file-restore", || fs::rename(&kept, path)).map_err(JoinError::io("putting back", path))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// What an agent leaves among its certificates.
fn is_certificate(name: &str) -> bool {
    ["kubelet-client", "kubelet-server", "kubelet.crt", "kubelet.key"].iter().any(|prefix| name.starts_with(prefix))
}

/// Removes records that a process which lives no more has left half-written.
fn remove_torn(folder: &Path) {
    let torn = names(folder).into_iter().filter(|name| {
        let owner = name.strip_prefix(record::TEMPORARY_PREFIX).and_then(|rest| rest.split('-').next());
        let owner = owner.and_then(|pid| pid.parse::<u32>().ok());
        owner.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
    });
    for name in torn {
        let _ = record::remove(&folder.join(name));
    }
}

/// Removes a folder that we made, unless something lies in it.
fn remove_empty(folder: &Path) {
    let outcome: io::Result<()> = berth_effect::run("join-folder-remove", || fs::remove_dir(folder));
    // One that holds something of others refuses, and stays.
    let _ = outcome;
}

#[cfg(test)]
mod tests;
