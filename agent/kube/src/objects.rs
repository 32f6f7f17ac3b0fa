//! What pods refer to, from the API server: fetched on the first reference, watched from then on.
//!
//! One watch per object that a pod of this node refers to, as the node authorizer allows no more. An object is forgotten
//! when no pod refers to it any longer ([`ClusterObjects::retain`]). Services and runtime classes are watched whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_volumes::{Change, Kind, ObjectError, Objects, Token, TokenOwner};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Error, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::connect::Cluster;
use crate::references::Key;

/// How long a pod start waits for an answer before it is told to try again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before a refused question is put again, and the last: 0.6 s in all.
const FORBIDDEN_PAUSE: Duration = Duration::from_millis(10);
const FORBIDDEN_LONGEST: Duration = Duration::from_millis(320);

/// The cluster's objects.
#[derive(Debug)]
pub struct ClusterObjects {
    client: Cluster,
    shared: Arc<Shared>,
    services: List<Service>,
    classes: List<RuntimeClass>,
}

/// By namespace, which may be empty, and name.
type All<K> = Arc<BTreeMap<(String, String), Arc<K>>>;

/// A list that is watched from the first question on; `None` inside until it was read once.
type List<K> = Mutex<Option<watch::Receiver<Option<All<K>>>>>;

#[derive(Debug)]
struct Shared {
    changes: broadcast::Sender<Change>,
    config_maps: Mutex<Cache<ConfigMap>>,
    secrets: Mutex<Cache<Secret>>,
}

type Cache<K> = HashMap<(String, String), Entry<K>>;

/// An object that is watched. `object` is `None` while it does not exist.
struct Entry<K> {
    object: Option<Arc<K>>,
    watch: AbortHandle,
}

impl<K> fmt::Debug for Entry<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets must not reach a log.
        out.debug_struct("Entry").field("exists", &self.object.is_some()).finish_non_exhaustive()
    }
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The kinds that are fetched by name.
trait Named:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;
    fn cache(shared: &Shared) -> &Mutex<Cache<Self>>;
}

/// The kinds that are watched whole.
trait Listed: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {}

impl Listed for Service {}
impl Listed for RuntimeClass {}

impl Named for ConfigMap {
    const KIND: Kind = Kind::ConfigMap;

    fn cache(shared: &Shared) -> &Mutex<Cache<Self>> {
        &shared.config_maps
    }
}

impl Named for Secret {
    const KIND: Kind = Kind::Secret;

    fn cache(shared: &Shared) -> &Mutex<Cache<Self>> {
        &shared.secrets
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterObjects {
    /// Nothing is fetched yet. Must be used within a tokio runtime.
    pub fn new(client: Client) -> Self {
        let shared =
            Shared { changes: broadcast::Sender::new(256), config_maps: Mutex::default(), secrets: Mutex::default() };
        Self {
            client: Cluster(client),
            shared: Arc::new(shared),
            services: Mutex::new(None),
            classes: Mutex::new(None),
        }
    }

    /// Forgets every object that is not among `referred`, and ends its watch.
    pub(crate) fn retain(&self, referred: &BTreeSet<Key>) {
        let is_referred = |kind: Kind, (namespace, name): &(String, String)| {
            referred.contains(&(kind, namespace.clone(), name.clone()))
        };
        lock(&self.shared.config_maps).retain(|key, _| is_referred(Kind::ConfigMap, key));
        lock(&self.shared.secrets).retain(|key, _| is_referred(Kind::Secret, key));
    }

    async fn named<K: Named>(&self, namespace: &str, name: &str) -> Result<Arc<K>, ObjectError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(entry) = lock(K::cache(&self.shared)).get(&key) {
            return entry.object.clone().ok_or_else(|| not_found(K::KIND, namespace, name));
        }
        let api: Api<K> = Api::namespaced(self.client.0.clone(), namespace);
        let fetched = asked(K::KIND, namespace, name, || api.get_opt(name)).await?;
        let object = fetched.map(|object| Arc::new(stripped(object)));
        let mut cache = lock(K::cache(&self.shared));
        // Two pods may have asked at once; the first one's watch serves both.
        let entry = cache.entry(key.clone()).or_insert_with(|| {
            let task = tokio::spawn(follow::<K>(self.shared.clone(), api, key));
            Entry { object, watch: task.abort_handle() }
        });
        entry.object.clone().ok_or_else(|| not_found(K::KIND, namespace, name))
    }

    /// All objects of a kind that is watched whole. Waits for the first reading.
    async fn all<K: Listed>(&self, list: &List<K>) -> Option<All<K>> {
        let follow = || {
            let (sender, receiver) = watch::channel(None);
            tokio::spawn(follow_all(Api::all(self.client.0.clone()), sender));
            receiver
        };
        let mut list = lock(list).get_or_insert_with(follow).clone();
        let read = timeout(PATIENCE, list.wait_for(Option::is_some)).await;
        read.ok()?.ok()?.clone()
    }
}

/// Keeps one entry current until its task is aborted.
async fn follow<K: Named>(shared: Arc<Shared>, api: Api<K>, key: (String, String)) {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = false;
    loop {
        let seen = match events.try_next().await {
            Ok(Some(Event::Init)) => {
                listed = false;
                continue;
            }
            Ok(Some(Event::InitApply(object))) => {
                listed = true;
                Some(Arc::new(stripped(object)))
            }
            Ok(Some(Event::Apply(object))) => Some(Arc::new(stripped(object))),
            Ok(Some(Event::InitDone)) if listed => continue,
            Ok(Some(Event::InitDone | Event::Delete(_))) => None,
            Ok(None) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => {
                tracing::debug!(kind = %K::KIND, namespace = %key.0, name = %key.1, %error, "a watch broke; it is made again");
                continue;
            }
        };
        let version = |object: Option<&Arc<K>>| object.and_then(|object| object.meta().resource_version.clone());
        let changed = match lock(K::cache(&shared)).get_mut(&key) {
            None => return,
            Some(entry) => {
                let changed = version(entry.object.as_ref()) != version(seen.as_ref());
                entry.object = seen;
                changed
            }
        };
        if changed {
            let (namespace, name) = key.clone();
            // Nobody listening is fine.
            let _ = shared.changes.send(Change { kind: K::KIND, namespace, name });
        }
    }
}

async fn follow_all<K: Listed>(api: Api<K>, sender: watch::Sender<Option<All<K>>>) {
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut objects = BTreeMap::new();
    let mut complete = false;
    let key = |object: &K| {
        (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
    };
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => {
                objects.clear();
                complete = false;
            }
            Ok(Some(Event::InitApply(object) | Event::Apply(object))) => {
                objects.insert(key(&object), Arc::new(stripped(object)));
            }
            Ok(Some(Event::Delete(object))) => drop(objects.remove(&key(&object))),
            Ok(Some(Event::InitDone)) => complete = true,
            Ok(None) => sleep(Duration::from_secs(1)).await,
            Err(error) => tracing::warn!(kind = %K::plural(&()), %error, "a watch of all broke; it is made again"),
        }
        if complete && sender.send(Some(Arc::new(objects.clone()))).is_err() {
            return;
        }
    }
}

fn stripped<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn not_found(kind: Kind, namespace: &str, name: &str) -> ObjectError {
    ObjectError::NotFound { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Asks, and asks again for a moment when the answer is 403: the node authorizer learns of a pod that was just bound to
/// this node no sooner than we do.
async fn asked<T, F: Future<Output = Result<T, Error>>>(
    kind: Kind,
    namespace: &str,
    name: &str,
    ask: impl Fn() -> F,
) -> Result<T, ObjectError> {
    let mut pause = FORBIDDEN_PAUSE;
    loop {
        let answered = timeout(PATIENCE, ask()).await;
        match &answered {
            Ok(Err(Error::Api(refused))) if refused.code == 403 && pause <= FORBIDDEN_LONGEST => {
                sleep(pause).await;
                pause *= 2;
            }
            _ => return answer(kind, namespace, name, answered),
        }
    }
}

/// An answer, or the lack of one, in the words of [`ObjectError`].
fn answer<T>(
    kind: Kind,
    namespace: &str,
    name: &str,
    answer: Result<Result<T, Error>, tokio::time::error::Elapsed>,
) -> Result<T, ObjectError> {
    let (namespace, owned) = (namespace.to_owned(), name.to_owned());
    let reason = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(Error::Api(answer))) if answer.code == 404 => {
            return Err(ObjectError::NotFound { kind, namespace, name: owned });
        }
        Ok(Err(Error::Api(answer))) if (400..500).contains(&answer.code) && answer.code != 429 => {
            return Err(ObjectError::Refused { kind, namespace, name: owned, reason: answer.message });
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing within {} s", PATIENCE.as_secs()),
    };
    Err(ObjectError::Unavailable { kind, namespace, name: owned, reason })
}

#[async_trait]
impl Objects for ClusterObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.named(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.named(namespace, name).await
    }

    async fn service_account_token(
        &self,
        owner: &TokenOwner,
        audience: &str,
        expiration_seconds: i64,
    ) -> Result<Token, ObjectError> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience.to_owned()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(owner.pod_name.clone()),
                    uid: Some(owner.pod_uid.clone()),
                }),
                expiration_seconds: Some(expiration_seconds),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.0.clone(), &owner.namespace);
        let (kind, account) = (Kind::ServiceAccountToken, owner.service_account.as_str());
        let params = PostParams::default();
        let answered = asked(kind, &owner.namespace, account, || {
            api.create_subresource::<_, TokenRequest>("token", account, &params, &request)
        })
        .await?;
        let token = answered.status.and_then(|status| Some((status.token?, status.expiration_timestamp?)));
        let (value, expires) = token.ok_or_else(|| ObjectError::Unavailable {
            kind,
            namespace: owner.namespace.clone(),
            name: account.to_owned(),
            reason: "the answer carries no token".to_owned(),
        })?;
        let expires = u64::try_from(expires.0.as_second()).unwrap_or(0);
        Ok(Token { value, expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(expires) })
    }

    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, ObjectError> {
        let services = self.all(&self.services).await.ok_or_else(|| ObjectError::Unavailable {
            kind: Kind::Service,
            namespace: namespace.to_owned(),
            name: "*".to_owned(),
            reason: "services have not yet been read at least once".to_owned(),
        })?;
        Ok(services.iter().filter(|((of, _), _)| of == namespace).map(|(_, service)| service.clone()).collect())
    }

    /// One that was made a moment ago, for the pod that names it, may have been listed before that: where the list has
    /// none, it is asked for by its name.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ObjectError> {
        let kind = Kind::RuntimeClass;
        let classes = self.all(&self.classes).await.ok_or_else(|| ObjectError::Unavailable {
            kind,
            namespace: String::new(),
            name: name.to_owned(),
            reason: "runtime classes have not yet been read at least once".to_owned(),
        })?;
        if let Some(class) = classes.get(&(String::new(), name.to_owned())) {
            return Ok(class.clone());
        }
        let api: Api<RuntimeClass> = Api::all(self.client.0.clone());
        let class = asked(kind, "", name, || api.get_opt(name)).await?;
        class.map(Arc::new).ok_or_else(|| not_found(kind, "", name))
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }
}
