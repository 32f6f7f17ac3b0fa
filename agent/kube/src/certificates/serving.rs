//! The certificate that the agent's own API shows, issued by the cluster (`serverTLSBootstrap`).

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep;

use super::life::{Life, Step, fraction, pause, step};
use super::request::request_telling;
use super::{CertificateError, Kind, Pair, Report, Store, Wanted, alarm};
use crate::connect::Cluster;

/// As for the client certificate. Nothing in a plain cluster approves these requests: an operator or another controller
/// does.
const PATIENCE: Duration = Duration::from_mins(15);

/// Gets the serving certificate and renews it.
///
/// Source: `kubernetes@v1.37.2:pkg/kubelet/certificate/kubelet.go#NewKubeletServerCertificateManager`.
#[derive(Debug)]
pub struct ServingCertificate {
    client: Cluster,
    node: String,
    names: Vec<String>,
    store: Store,
    pair: watch::Sender<Option<Pair>>,
    report: watch::Sender<Report>,
}

impl ServingCertificate {
    /// For `node` and its `names` (addresses among them), kept in `dir` as `kubelet-server-current.pem`.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn open(client: Client, node: &str, names: Vec<String>, dir: &Path) -> Result<Self, CertificateError> {
        let store = Store::open_named(dir, "kubelet-server")?;
        let kept = store.current().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kept serving certificate can't be used");
            None
        });
        let kept = kept.filter(|pair| pair.is_valid(SystemTime::now()));
        let (pair, report) = (watch::Sender::new(kept), watch::Sender::new(Report::default()));
        Ok(Self { client: Cluster(client), node: node.to_owned(), names, store, pair, report })
    }

    /// The certificate to show; `None` until there is one.
    pub fn pair(&self) -> watch::Receiver<Option<Pair>> {
        self.pair.subscribe()
    }

    /// How it is doing.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Gets and renews it; never returns.
    pub async fn run(self) -> Infallible {
        let mut failures = 0;
        let mut renewal = None;
        loop {
            let held = self.pair.borrow().clone();
            // One that lacks a name is shown, and replaced now.
            let life = held.as_ref().filter(|pair| pair.is_for(&self.names)).map(Life::of);
            let at = life.map(|life| *renewal.get_or_insert_with(|| life.renewal(fraction())));
            self.report.send_if_modified(|report| {
                let now = Report {
                    usable: held.as_ref().is_some_and(|pair| pair.is_valid(SystemTime::now())),
                    not_after: held.as_ref().map(Pair::not_after),
                    renewal: at,
                    problem: report.problem.take(),
                };
                let changed =
                    (now.usable, now.not_after, now.renewal) != (report.usable, report.not_after, report.renewal);
                *report = now;
                changed
            });
            if let Step::Keep { until } = step(life, at, SystemTime::now()) {
                alarm::wait_until(until).await;
                continue;
            }
            match self.renew().await {
                Ok(pair) => {
                    (failures, renewal) = (0, None);
                    self.report.send_modify(|report| report.problem = None);
                    self.pair.send_replace(Some(pair));
                }
                Err(error) => {
                    failures += 1;
                    self.tell(error.to_string());
                    sleep(pause(failures, fraction())).await;
                }
            }
        }
    }

    async fn renew(&self) -> Result<Pair, CertificateError> {
        let kind = Kind::Serving { names: self.names.clone() };
        let wanted = Wanted { node: self.node.clone(), kind, patience: PATIENCE };
        let mut pair = request_telling(&self.client.0, &wanted, &|what| self.tell(what)).await?;
        self.store.write(&pair)?;
        pair.obtained = Some(SystemTime::now());
        Ok(pair)
    }

    fn tell(&self, problem: String) {
        self.report.send_if_modified(|report| {
            if report.problem.as_ref() == Some(&problem) {
                return false;
            }
            tracing::warn!(%problem, "serving certificate");
            report.problem = Some(problem);
            true
        });
    }
}
