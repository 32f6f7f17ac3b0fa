//! From what a pod declares to host paths.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::empty_dir::{self, Medium};
use crate::payload::{Gathered, Gathering, identity};
use crate::{Facts, HostPath, ObjectError, Objects, VolumeError, atomic, downward, host_path, layout, tmpfs};

/// Makes every volume of `pod` and says where each lies, by volume name.
///
/// Idempotent: what is already there is brought up to date, and a bound token is kept until it is due. While the API
/// server is away, a volume that was written before keeps what it shows; only a new one must wait.
///
/// # Errors
/// The first volume that could not be made; what was made beside it stays for the next attempt, until
/// [`crate::teardown`].
pub async fn prepare(
    pod: &Pod,
    objects: &dyn Objects,
    root: &Path,
    facts: &Facts,
) -> Result<BTreeMap<String, HostPath>, VolumeError> {
    let (paths, _) = all(pod, objects, root, facts).await?;
    Ok(paths)
}

/// As [`prepare`], with the time at which a token is due.
pub(crate) async fn all(
    pod: &Pod,
    objects: &dyn Objects,
    root: &Path,
    facts: &Facts,
) -> Result<(BTreeMap<String, HostPath>, Option<SystemTime>), VolumeError> {
    let uid = pod.metadata.uid.as_deref().filter(|uid| layout::is_component(uid));
    let uid = uid.ok_or(VolumeError::NoIdentity { field: "uid" })?;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for (index, volume) in volumes.iter().enumerate() {
        let invalid =
            |reason: &str| VolumeError::Invalid { index, field: "name".to_owned(), reason: reason.to_owned() };
        if !layout::is_component(&volume.name) {
            return Err(invalid("must be a DNS label"));
        }
        if volumes[..index].iter().any(|earlier| earlier.name == volume.name) {
            return Err(invalid("is used twice"));
        }
    }
    let made = volumes.iter().enumerate().map(|(index, volume)| {
        let one = One { pod, objects, root, facts, uid, index, volume };
        async move { one.make().await }
    });
    let mut paths = BTreeMap::new();
    let mut next: Option<SystemTime> = None;
    for (volume, made) in volumes.iter().zip(join_all(made).await) {
        let (path, renew) = made?;
        paths.insert(volume.name.clone(), path);
        next = [next, renew].into_iter().flatten().min();
    }
    Ok((paths, next))
}

/// One volume being made.
#[derive(Clone, Copy)]
struct One<'a> {
    pod: &'a Pod,
    objects: &'a dyn Objects,
    root: &'a Path,
    facts: &'a Facts,
    uid: &'a str,
    index: usize,
    volume: &'a Volume,
}

type Made = Result<(HostPath, Option<SystemTime>), VolumeError>;

impl One<'_> {
    async fn make(&self) -> Made {
        let volume = self.volume;
        if let Some(source) = &volume.empty_dir {
            let medium = empty_dir::medium(source, self.pod, self.facts);
            let medium = medium.map_err(|(field, reason)| self.invalid(field.to_owned(), reason))?;
            let path = self.path("empty-dir");
            empty_dir::make(&path, medium, identity(self.pod).fs_group)
                .map_err(|source| self.io("make", &path, source))?;
            return Ok((HostPath { path, read_only: false }, None));
        }
        if let Some(source) = &volume.host_path {
            if !source.path.starts_with('/') || source.path.split('/').any(|part| part == "..") {
                return Err(self.invalid("hostPath.path".to_owned(), "must be absolute and without '..'".to_owned()));
            }
            let checked = host_path::check(&source.path, source.type_.as_deref().unwrap_or_default());
            checked.map_err(|reason| VolumeError::HostPathType { volume: volume.name.clone(), reason })?;
            return Ok((HostPath { path: PathBuf::from(&source.path), read_only: false }, None));
        }
        // What lies in memory and what does not is the kubelet's choice.
        if let Some(source) = &volume.config_map {
            let path = self.path("configmap");
            return self.show(&path, false, self.gathering(&path).config_map(source).await);
        }
        if let Some(source) = &volume.secret {
            let path = self.path("secret");
            return self.show(&path, true, self.gathering(&path).secret(source).await);
        }
        if let Some(source) = &volume.projected {
            let path = self.path("projected");
            return self.show(&path, true, self.gathering(&path).projected(source).await);
        }
        if let Some(source) = &volume.downward_api {
            let mode = crate::payload::mode(source.default_mode, 0o644);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = downward::payload(items, mode, self.pod, self.facts);
            let payload = payload.map_err(|(below, reason)| self.invalid(format!("downwardAPI.{below}"), reason))?;
            return self.show(&self.path("downward-api"), true, Ok((payload, None)));
        }
        Err(self.unknown_source())
    }

    fn gathering<'b>(&'b self, target: &'b Path) -> Gathering<'b> {
        Gathering {
            pod: self.pod,
            objects: self.objects,
            facts: self.facts,
            index: self.index,
            volume: &self.volume.name,
            target,
        }
    }

    /// Writes what was gathered, or leaves what is there when the API server is away.
    fn show(&self, path: &Path, in_memory: bool, gathered: Gathered) -> Made {
        let shown = HostPath { path: path.to_path_buf(), read_only: true };
        let (payload, renew) = match gathered {
            Ok(gathered) => gathered,
            Err(VolumeError::Object { source: ObjectError::Unavailable { .. }, .. })
                if atomic::current(path).is_some() =>
            {
                tracing::warn!(volume = %self.volume.name, "the API server is away: the volume keeps what it shows");
                return Ok((shown, Some(SystemTime::now() + crate::maintain::RETRY)));
            }
            Err(error) => return Err(error),
        };
        let medium =
            if in_memory { Medium::Memory(empty_dir::memory_size(None, self.pod, self.facts)) } else { Medium::Disk };
        empty_dir::make(path, medium, None).map_err(|source| self.io("make", path, source))?;
        atomic::write(path, &payload, identity(self.pod).fs_group).map_err(|source| self.io("write", path, source))?;
        Ok((shown, renew))
    }

    fn path(&self, plugin: &str) -> PathBuf {
        layout::volume(self.root, self.uid, plugin, &self.volume.name)
    }

    fn invalid(&self, field: String, reason: String) -> VolumeError {
        VolumeError::Invalid { index: self.index, field, reason }
    }

    fn io(&self, action: &'static str, path: &Path, source: io::Error) -> VolumeError {
        if source.kind() == io::ErrorKind::InvalidInput {
            return self.invalid("items.path".to_owned(), source.to_string());
        }
        VolumeError::Io { volume: self.volume.name.clone(), action, path: path.to_path_buf(), source }
    }

    /// Names the source that nothing above took.
    fn unknown_source(&self) -> VolumeError {
        let json = serde_json::to_value(self.volume).unwrap_or_default();
        let field = json.as_object().and_then(|volume| volume.keys().find(|key| *key != "name").cloned());
        match field {
            Some(field) => VolumeError::Unsupported { index: self.index, field },
            None => self.invalid("emptyDir".to_owned(), "the volume names no source".to_owned()),
        }
    }
}

/// Whether a volume of `pod` is in memory; used by tests and by whoever accounts memory.
pub fn is_in_memory(path: &Path) -> bool {
    tmpfs::is_mount(path).unwrap_or(false)
}
