//! The files of volumes that show objects: configMap, secret, and projections of them.

use std::path::Path;
use std::time::SystemTime;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, ConfigMapVolumeSource, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    SecretProjection, SecretVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

use crate::atomic::{self, Payload, Projection};
use crate::{Facts, Kind, ObjectError, Objects, TokenOwner, VolumeError, downward, token};

/// What the API server sets when the pod says nothing.
const DEFAULT_MODE: u32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// A volume whose files are being gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) facts: &'a Facts,
    /// Index in `spec.volumes`.
    pub(crate) index: usize,
    /// Name in `spec.volumes`.
    pub(crate) volume: &'a str,
    /// Where the volume lies: its present token is read back from here.
    pub(crate) target: &'a Path,
}

/// The files, and when they are to be gathered again because a token ages.
pub(crate) type Gathered = Result<(Payload, Option<SystemTime>), VolumeError>;

impl Gathering<'_> {
    pub(crate) async fn config_map(&self, source: &ConfigMapVolumeSource) -> Gathered {
        let optional = source.optional.unwrap_or(false);
        let object = self.fetch_config_map(&source.name, optional).await?;
        let mode = mode(source.default_mode, DEFAULT_MODE);
        Ok((self.of_config_map(object.as_deref(), source.items.as_deref(), mode, optional)?, None))
    }

    pub(crate) async fn secret(&self, source: &SecretVolumeSource) -> Gathered {
        let optional = source.optional.unwrap_or(false);
        let object = self.fetch_secret(source.secret_name.as_deref().unwrap_or_default(), optional).await?;
        let mode = mode(source.default_mode, DEFAULT_MODE);
        Ok((self.of_secret(object.as_deref(), source.items.as_deref(), mode, optional)?, None))
    }

    pub(crate) async fn projected(&self, source: &ProjectedVolumeSource) -> Gathered {
        let sources = source.sources.as_deref().unwrap_or_default();
        let mode = mode(source.default_mode, DEFAULT_MODE);
        let parts = join_all(sources.iter().enumerate().map(|(number, part)| self.part(number, part, mode))).await;
        let mut all = Payload::new();
        let mut next: Option<SystemTime> = None;
        for part in parts {
            let (payload, renew) = part?;
            all.extend(payload);
            next = [next, renew].into_iter().flatten().min();
        }
        Ok((all, next))
    }

    async fn part(&self, number: usize, source: &VolumeProjection, mode: u32) -> Gathered {
        if let Some(ConfigMapProjection { items, name, optional }) = &source.config_map {
            let optional = optional.unwrap_or(false);
            let object = self.fetch_config_map(name, optional).await?;
            return Ok((self.of_config_map(object.as_deref(), items.as_deref(), mode, optional)?, None));
        }
        if let Some(SecretProjection { items, name, optional }) = &source.secret {
            let optional = optional.unwrap_or(false);
            let object = self.fetch_secret(name, optional).await?;
            return Ok((self.of_secret(object.as_deref(), items.as_deref(), mode, optional)?, None));
        }
        if let Some(downward) = &source.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            let payload = downward::payload(items, mode, self.pod, self.facts).map_err(|(below, reason)| {
                self.invalid(format!("projected.sources[{number}].downwardAPI.{below}"), reason)
            })?;
            return Ok((payload, None));
        }
        if let Some(token) = &source.service_account_token {
            return self.token(token, mode).await;
        }
        let field = match source {
            VolumeProjection { cluster_trust_bundle: Some(_), .. } => "clusterTrustBundle",
            VolumeProjection { pod_certificate: Some(_), .. } => "podCertificate",
            _ => return Err(self.invalid(format!("projected.sources[{number}]"), "names no source".to_owned())),
        };
        let field = format!("projected.sources[{number}].{field}");
        Err(VolumeError::Unsupported { index: self.index, field })
    }

    async fn token(&self, source: &ServiceAccountTokenProjection, mode: u32) -> Gathered {
        let identity = identity(self.pod);
        // A token that only root could read would be useless to others: who runs as one user alone owns it.
        let owner = if identity.fs_group.is_none() { identity.only_user } else { None };
        let mode = if owner.is_some() || identity.fs_group.is_some() { 0o600 } else { mode };
        let file = |value: String| {
            Payload::from([(source.path.clone(), Projection { data: value.into_bytes(), mode, owner })])
        };

        let present = atomic::current(self.target)
            .and_then(|current| std::fs::read_to_string(self.target.join(current).join(&source.path)).ok());
        if let Some(present) = &present
            && let Some(renew) = token::renew_at(present)
            && renew > SystemTime::now()
        {
            return Ok((file(present.clone()), Some(renew)));
        }
        let audience = source.audience.as_deref().unwrap_or_default();
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
        let token = self.objects.service_account_token(&owner_of(self.pod), audience, seconds).await;
        let token = token.map_err(|source| self.object(source))?;
        let renew = token::renew_at(&token.value).unwrap_or_else(|| {
            // Not a JWT: go by the API server's word, counted from now.
            let life = token.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
            SystemTime::now() + life * 4 / 5
        });
        Ok((file(token.value), Some(renew)))
    }

    async fn fetch_config_map(
        &self,
        name: &str,
        optional: bool,
    ) -> Result<Option<std::sync::Arc<ConfigMap>>, VolumeError> {
        self.forgive(self.objects.config_map(namespace(self.pod), name).await, optional)
    }

    async fn fetch_secret(&self, name: &str, optional: bool) -> Result<Option<std::sync::Arc<Secret>>, VolumeError> {
        self.forgive(self.objects.secret(namespace(self.pod), name).await, optional)
    }

    fn forgive<T>(&self, answer: Result<T, ObjectError>, optional: bool) -> Result<Option<T>, VolumeError> {
        match answer {
            Ok(object) => Ok(Some(object)),
            Err(error) if optional && error.is_missing() => Ok(None),
            Err(error) => Err(self.object(error)),
        }
    }

    fn of_config_map(
        &self,
        object: Option<&ConfigMap>,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let text = object.and_then(|object| object.data.as_ref()).into_iter().flatten();
        let binary = object.and_then(|object| object.binary_data.as_ref()).into_iter().flatten();
        let binary = binary.map(|(key, data)| (key.as_str(), data.0.as_slice()));
        let entries = text.map(|(key, data)| (key.as_str(), data.as_bytes())).chain(binary);
        self.choose(entries.collect(), items, mode, optional, Kind::ConfigMap)
    }

    fn of_secret(
        &self,
        object: Option<&Secret>,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let entries = object.and_then(|object| object.data.as_ref()).into_iter().flatten();
        let entries = entries.map(|(key, data)| (key.as_str(), data.0.as_slice()));
        self.choose(entries.collect(), items, mode, optional, Kind::Secret)
    }

    /// All entries under their keys, or the chosen ones under their paths.
    fn choose(
        &self,
        entries: std::collections::BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        default_mode: u32,
        optional: bool,
        kind: Kind,
    ) -> Result<Payload, VolumeError> {
        let file = |data: &[u8], mode: u32| Projection { data: data.to_vec(), mode, owner: None };
        let items = items.unwrap_or_default();
        if items.is_empty() {
            return Ok(entries.into_iter().map(|(key, data)| (key.to_owned(), file(data, default_mode))).collect());
        }
        let mut payload = Payload::new();
        for item in items {
            match entries.get(item.key.as_str()) {
                Some(data) => drop(payload.insert(item.path.clone(), file(data, mode(item.mode, default_mode)))),
                None if optional => {}
                None => {
                    let what = if kind == Kind::Secret { "secret" } else { "config" };
                    return Err(VolumeError::MissingKey {
                        volume: self.volume.to_owned(),
                        what,
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(payload)
    }

    fn object(&self, source: ObjectError) -> VolumeError {
        VolumeError::Object { volume: self.volume.to_owned(), source }
    }

    pub(crate) fn invalid(&self, field: String, reason: String) -> VolumeError {
        VolumeError::Invalid { index: self.index, field, reason }
    }
}

/// Who reads the pod's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) fs_group: Option<u32>,
    /// The one user that all containers run as, when it is declared and the same for all.
    only_user: Option<u32>,
}

pub(crate) fn identity(pod: &Pod) -> Identity {
    let Some(spec) = &pod.spec else { return Identity { fs_group: None, only_user: None } };
    let of_pod = spec.security_context.as_ref();
    let fs_group = of_pod.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    let default = of_pod.and_then(|context| context.run_as_user);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users = containers
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(default));
    let only_user = users.next().flatten().filter(|first| users.all(|user| user == Some(*first)));
    Identity { fs_group, only_user: only_user.and_then(|user| u32::try_from(user).ok()) }
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn owner_of(pod: &Pod) -> TokenOwner {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    TokenOwner {
        namespace: namespace(pod).to_owned(),
        service_account: account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

pub(crate) fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).filter(|mode| *mode <= 0o777).unwrap_or(default)
}
