//! The agent's credentials: found or bootstrapped, then renewed for ever.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep;

use super::bootstrap::bootstrap_anew;
use super::life::{Life, Step, fraction, pause, step};
use super::request::request_telling;
use super::{CertificateError, Kind, Pair, Store, Wanted, alarm};
use crate::connect::{Cluster, connect_as, read};
use crate::kubeconfig::{self, Found, look, with_certificate};
use crate::live::{self, Switch};

/// How long a request may wait for its answer before the next one is made
/// (`k8s.io/client-go@v0.37.2:util/certificate/certificate_manager.go#certificateWaitTimeout`).
const PATIENCE: Duration = Duration::from_mins(15);

/// Where the credentials are and what may be done about them.
#[derive(Debug, Clone)]
pub struct CredentialOptions {
    /// The kubeconfig to use; written after a bootstrap.
    pub kubeconfig: PathBuf,
    /// The one to get a certificate by when that one has none that is good.
    pub bootstrap: Option<PathBuf>,
    /// The node's name.
    pub node: String,
    /// The folder of certificates (`/var/lib/kubelet/pki`).
    pub dir: PathBuf,
    /// Whether the client certificate is renewed before its end.
    pub rotate: bool,
}

/// How a certificate is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether there is something to speak (or to be shown) with now.
    pub usable: bool,
    /// Until when it is good; `None` when there is none.
    pub not_after: Option<SystemTime>,
    /// When it is to be renewed.
    pub renewal: Option<SystemTime>,
    /// What keeps it from being got or renewed, and what to do about it: for people.
    pub problem: Option<String>,
}

/// The client of the API server and what keeps it able to speak.
#[derive(Debug)]
pub struct Credentials {
    options: CredentialOptions,
    client: Cluster,
    switch: Switch,
    report: watch::Sender<Report>,
    held: Option<Held>,
}

/// A certificate in use.
#[derive(Debug, Clone)]
struct Held {
    life: Life,
    renewal: Option<SystemTime>,
}

impl Credentials {
    /// Takes the certificate that is there; if there is none that is good, [`Credentials::run`] gets one.
    ///
    /// The kubelet's rule (`kubernetes@v1.37.2:pkg/kubelet/certificate/bootstrap/bootstrap.go#LoadClientConfig`): without
    /// a bootstrap kubeconfig the kubeconfig must do; with one it must have a client certificate that has not ended.
    ///
    /// # Errors
    /// Files that can't be used, and no file to begin with.
    pub async fn open(options: CredentialOptions) -> Result<Self, CertificateError> {
        let (client, switch) = live::client("none yet");
        let report = watch::Sender::new(Report::default());
        let mut credentials = Self { options, client: Cluster(client), switch, report, held: None };
        credentials.begin().await?;
        Ok(credentials)
    }

    async fn begin(&mut self) -> Result<(), CertificateError> {
        let found = look(&self.options.kubeconfig);
        if self.pick_up(&found).await? {
            return Ok(());
        }
        let kubeconfig = self.options.kubeconfig.display();
        match (found, &self.options.bootstrap) {
            (Found::Certificate(ended), _) => {
                self.lose(format!("{kubeconfig}: its client certificate ended at {}", time(ended.not_after())));
                Ok(())
            }
            (_, Some(bootstrap)) if bootstrap.exists() => Ok(()),
            // A token, or whatever else is no certificate: nothing to renew.
            (Found::Unusable(_), None) => {
                let way = read(&self.options.kubeconfig)?;
                self.switch.set(connect_as(&self.options.kubeconfig, way).await?);
                self.report.send_modify(|report| report.usable = true);
                Ok(())
            }
            (Found::Unusable(reason), Some(bootstrap)) => {
                Err(CertificateError::NoWay(format!("{reason}, and {} does not exist", bootstrap.display())))
            }
            (Found::Absent, Some(bootstrap)) => Err(CertificateError::NoWay(format!(
                "neither {kubeconfig} nor {} exists: `berth join` (or kubeadm join) writes them",
                bootstrap.display()
            ))),
            (Found::Absent, None) => Err(CertificateError::NoWay(format!("{kubeconfig} does not exist"))),
        }
    }

    /// Uses a good certificate that lies there: the store's where it is ahead of the kubeconfig's (which may hold the one
    /// that was there first), else the kubeconfig's. Whether there is one.
    async fn pick_up(&mut self, found: &Found) -> Result<bool, CertificateError> {
        let now = SystemTime::now();
        let Found::Certificate(given) = found else { return Ok(false) };
        if let Some((stored, file)) = self.stored(now).filter(|(stored, _)| stored.not_after() > given.not_after()) {
            self.take(&stored, &file).await?;
            return Ok(true);
        }
        if !given.is_valid(now) {
            return Ok(false);
        }
        let way = read(&self.options.kubeconfig)?;
        self.switch.set(connect_as(&self.options.kubeconfig, way).await?);
        self.hold(given);
        Ok(true)
    }

    /// What an earlier renewal left, and where.
    fn stored(&self, now: SystemTime) -> Option<(Pair, PathBuf)> {
        if !self.options.rotate {
            return None;
        }
        let own = format!("system:node:{}", self.options.node);
        match Store::open(&self.options.dir).and_then(|store| Ok((store.current()?, store.current_path()))) {
            Ok((Some(pair), path)) if pair.is_valid(now) && pair.common_name().as_ref() == Some(&own) => {
                Some((pair, path))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "the kept client certificate can't be used");
                None
            }
        }
    }

    /// The client, the same for as long as this runs.
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// How the client certificate is doing, from now on.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// The API server's address, for people.
    pub fn server(&self) -> Option<String> {
        let bootstrap = || kubeconfig::server(self.options.bootstrap.as_deref()?);
        kubeconfig::server(&self.options.kubeconfig).or_else(bootstrap)
    }

    /// Gets, renews and replaces the certificate; never returns.
    pub async fn run(mut self) -> Infallible {
        if self.held.is_none() && self.report.borrow().usable {
            // Nothing that ends.
            return std::future::pending().await;
        }
        let mut failures = 0;
        let mut refused = false;
        loop {
            let (life, renewal) = self.held.as_ref().map_or((None, None), |held| (Some(held.life), held.renewal));
            let bootstrap = self.options.bootstrap.clone().filter(|file| file.exists());
            let outcome = match step(life, renewal, SystemTime::now()) {
                Step::Keep { until } => {
                    alarm::wait_until(until).await;
                    continue;
                }
                Step::Renew if refused && bootstrap.is_some() => self.bootstrap(bootstrap).await,
                Step::Renew => self.renew(life).await,
                Step::Bootstrap => {
                    if let Some(life) = life {
                        self.lose(format!("the client certificate ended at {}", time(life.end)));
                    }
                    // Somebody may have brought a new one.
                    match self.pick_up(&look(&self.options.kubeconfig)).await {
                        Ok(false) => self.bootstrap(bootstrap).await,
                        Ok(true) => Ok(()),
                        Err(error) => Err(error),
                    }
                }
            };
            match outcome {
                Ok(()) => (failures, refused) = (0, false),
                Err(error) => {
                    failures += 1;
                    refused = error.is_unauthorized();
                    self.tell(error.to_string());
                    let pause = sleep(pause(failures, fraction()));
                    match life.filter(|life| SystemTime::now() < life.end) {
                        None => pause.await,
                        // Its end changes what is to be done.
                        Some(life) => tokio::select! {
                            () = pause => {}
                            () = alarm::wait_until(life.end) => {}
                        },
                    }
                }
            }
        }
    }

    /// By the present certificate.
    async fn renew(&mut self, life: Option<Life>) -> Result<(), CertificateError> {
        let rest = life.and_then(|life| life.end.duration_since(SystemTime::now()).ok()).unwrap_or(PATIENCE);
        let wanted = Wanted { node: self.options.node.clone(), kind: Kind::Client, patience: rest.min(PATIENCE) };
        let store = Store::open(&self.options.dir)?;
        let client = self.client();
        let mut pair = request_telling(&client, &wanted, &|what| self.tell(what)).await?;
        let file = store.write(&pair)?;
        pair.obtained = Some(SystemTime::now());
        tracing::info!(until = %time(pair.not_after()), "client certificate renewed");
        self.take(&pair, &file).await
    }

    async fn bootstrap(&mut self, bootstrap: Option<PathBuf>) -> Result<(), CertificateError> {
        let Some(file) = bootstrap else {
            let file = self.options.bootstrap.as_ref().map_or_else(
                || "no --bootstrap-kubeconfig is given".to_owned(),
                |file| format!("{} does not exist", file.display()),
            );
            let end =
                self.held.as_ref().map_or_else(String::new, |held| format!(" (it ended at {})", time(held.life.end)));
            return Err(CertificateError::NoWay(format!(
                "there is no valid client certificate{end}, and {file}: join the machine again with a new token \
                 (`kubeadm token create --print-join-command` on the control plane)"
            )));
        };
        let store = Store::open(&self.options.dir)?;
        let kubeconfig = self.options.kubeconfig.clone();
        let (mut pair, path) =
            bootstrap_anew(&file, &kubeconfig, &self.options.node, &store, &|what| self.tell(what)).await?;
        pair.obtained = Some(SystemTime::now());
        tracing::info!(until = %time(pair.not_after()), "client certificate issued");
        self.take(&pair, &path).await
    }

    /// From now on everything goes by `pair`, which lies in `file`.
    async fn take(&mut self, pair: &Pair, file: &Path) -> Result<(), CertificateError> {
        let kubeconfig = with_certificate(read(&self.options.kubeconfig)?, file);
        let client = connect_as(&self.options.kubeconfig, kubeconfig).await?;
        self.switch.set(client);
        self.hold(pair);
        Ok(())
    }

    fn hold(&mut self, pair: &Pair) {
        let life = Life::of(pair);
        let renewal = self.options.rotate.then(|| life.renewal(fraction()));
        self.report.send_replace(Report { usable: true, not_after: Some(life.end), renewal, problem: None });
        self.held = Some(Held { life, renewal });
    }

    /// There is no good certificate any more: nothing is sent with the old one.
    fn lose(&mut self, reason: String) {
        self.switch.unset(&reason);
        self.report.send_if_modified(|report| std::mem::take(&mut report.usable));
        if self.report.borrow().problem.is_none() {
            self.tell(reason);
        }
    }

    /// Logs a problem when it is a new one, and shows it.
    fn tell(&self, problem: String) {
        self.report.send_if_modified(|report| {
            if report.problem.as_ref() == Some(&problem) {
                return false;
            }
            tracing::warn!(%problem, "client certificate");
            report.problem = Some(problem);
            true
        });
    }
}

fn time(time: SystemTime) -> Timestamp {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
