//! `berth join`: this machine becomes a node of a cluster that kubeadm made.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use berth_join::{
    Argument, Cluster, Discovery, Installation, JoinError, Journal, Lock, Options, Paths, Phase, Plan, Request,
    Standing, Trusted, configuration, judge, obstacles, read_flags, standing, systemd,
};
use berth_kube::certificates::{Store, bootstrap};

use crate::cli::{Agent, Join, LogOptions};
use crate::status::STATE;
use crate::{agent, agent_options, host, leave, logging, runtime};

/// kubeadm's default for `timeouts.tlsBootstrap`.
const TLS_BOOTSTRAP: Duration = Duration::from_mins(5);
/// The control plane approves by itself at once, or not at all.
const APPROVAL: Duration = Duration::from_secs(10);

pub(crate) async fn run(options: Join, log: &LogOptions) -> Result<()> {
    // The terminal tells the story, and one sentence what went wrong; the log is the agent's, once it runs here.
    if log.log_level.is_some() {
        logging::init(log, "info")?;
    }
    let request = request(&options)?;
    let program = std::env::current_exe().context("finding this program")?;
    let paths = Paths::default();
    let lock = Lock::take(&paths)?;
    println!("[preflight] Running pre-flight checks");
    let installation = match clear_the_way(&paths, &request)? {
        Some(installation) => installation,
        None => {
            for found in judge(obstacles(&paths, &request), &request.ignored)? {
                println!("[preflight] [WARNING {}]: {}", found.name, found.reason);
            }
            let trusted = discover(&request).await?;
            let cluster = read_cluster(&trusted, &request).await?;
            install(&paths, &lock, &request, &trusted, &cluster).await?
        }
    };
    let Some(agent_options) = start(&paths, lock, installation, &program)? else { return Ok(()) };
    if log.log_level.is_none() {
        logging::init(log, agent_options.log_level())?;
    }
    agent::run(agent_options).await
}

fn request(options: &Join) -> Result<Request> {
    let typed = Options {
        endpoint: options.endpoint.clone(),
        token: options.token.clone(),
        hashes: options.discovery_token_ca_cert_hash.clone(),
        skip_verification: options.discovery_token_unsafe_skip_ca_verification,
        discovery_file: options.discovery_file.clone(),
        tls_bootstrap_token: options.tls_bootstrap_token.clone(),
        cri_socket: options.cri_socket.clone(),
        node_name: options.node_name.clone(),
        node_ip: options.node_ip,
        ignored: options.ignore_preflight_errors.clone(),
    };
    let request = match &options.config {
        None => Request::from_options(&typed, &host::name())?,
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("--config {}", file.display()))?;
            configuration::load(file, &text, &typed, &host::name())?
        }
    };
    for Argument { name, value, place } in &request.arguments {
        let arguments = ["--kubeconfig=/".to_owned(), format!("--{name}={value}")];
        agent_options(arguments.to_vec()).map_err(|error| anyhow!("{place}: --{name} is not supported: {error:#}"))?;
    }
    Ok(request)
}

/// Deals with what an earlier join has left: undoes one that did not get far, returns one that is to be gone on with.
fn clear_the_way<'a>(paths: &'a Paths, request: &Request) -> Result<Option<Installation<'a>>> {
    let standing = match standing(paths) {
        Err(JoinError::Joined { .. }) if let Some(journal) = without_agent(paths, &request.node)? => {
            println!(
                "[preflight] This machine has joined {} as node {:?}, and no agent runs: starting it",
                journal.describe(),
                journal.node
            );
            return Ok(Some(Installation::resume(paths, journal)));
        }
        other => other?,
    };
    let journal = match standing {
        Standing::Free => return Ok(None),
        Standing::Starting(journal) if journal.node == request.node => {
            println!(
                "[preflight] An earlier join of {} as node {:?} lacked the agent's start only: going on with it",
                journal.describe(),
                journal.node
            );
            return Ok(Some(Installation::resume(paths, journal)));
        }
        Standing::Starting(journal) | Standing::Begun(journal) => journal,
    };
    println!("[preflight] An earlier join of {} did not finish: undoing what it left", journal.describe());
    match Installation::resume(paths, journal).undo().into_iter().next() {
        None => Ok(None),
        Some(error) => Err(error).context("undoing an earlier join"),
    }
}

/// The journal of a join as `node` whose agent runs in the foreground, and does not: it was killed, or the machine has
/// booted since. Where systemd runs the agent it is systemd's to start.
fn without_agent(paths: &Paths, node: &str) -> Result<Option<Journal>> {
    let ours = Journal::load(paths)?.filter(|journal| journal.unit.is_none() && journal.node == node);
    Ok(ours.filter(|_| leave::running(Path::new(STATE)).is_none()))
}

async fn discover(request: &Request) -> Result<Trusted> {
    let (place, pinned) = match &request.discovery {
        Discovery::Token { endpoint, pins, .. } => (endpoint.clone(), !pins.is_empty()),
        Discovery::File { path } => (path.display().to_string(), false),
    };
    println!("[discovery] Requesting cluster-info from {place:?}");
    let trusted = berth_join::discover(request).await?;
    let roots = if pinned { " and TLS certificate validates against pinned roots" } else { "" };
    println!(
        "[discovery] Cluster info signature and contents are valid{roots}, will use API Server {:?}",
        trusted.server
    );
    Ok(trusted)
}

async fn read_cluster(trusted: &Trusted, request: &Request) -> Result<Cluster> {
    println!(
        "[preflight] Reading configuration from the \"kubeadm-config\" and \"kubelet-config\" ConfigMaps in namespace \"kube-system\"..."
    );
    Ok(Cluster::read(trusted, &request.node).await?)
}

/// Writes the files and gets the certificate; takes everything back when that fails or the user interrupts it.
async fn install<'a>(
    paths: &'a Paths,
    lock: &Lock,
    request: &Request,
    trusted: &Trusted,
    cluster: &Cluster,
) -> Result<Installation<'a>> {
    let plan = Plan::new(paths, request, trusted, cluster)?;
    for warning in &plan.warnings {
        println!("[kubelet-start] WARNING: {warning}");
    }
    let mut ended = std::pin::pin!(runtime::asked_to_end());
    // Polled once, so that from the first file on a signal undoes instead of killing.
    tokio::select! {
        biased;
        ended = &mut ended => { ended?; bail!("interrupted") }
        () = std::future::ready(()) => {}
    }
    let told = |file: &berth_join::File| println!("[kubelet-start] Writing {} to file {:?}", file.what, file.path);
    let mut installation = Installation::begin(paths, lock, &plan, told)?;
    let outcome = tokio::select! {
        outcome = certify(paths, request) => outcome,
        ended = &mut ended => ended.and_then(|()| Err(anyhow!("interrupted"))),
    };
    let outcome = outcome.and_then(|()| Ok(installation.credentials_are_there(systemd::is_running(paths))?));
    match outcome {
        Ok(()) => Ok(installation),
        Err(error) => Err(undone(installation, error)),
    }
}

/// The node's own certificate, once its configuration is known to be good.
async fn certify(paths: &Paths, request: &Request) -> Result<()> {
    agent::check(&agent_of(paths)?)?;
    println!("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
    let store = Store::open(&paths.certificates())?;
    let (from, to) = (paths.bootstrap_kubeconfig(), paths.kubeconfig());
    let patience = request.timeouts.tls_bootstrap.unwrap_or(TLS_BOOTSTRAP);
    let asked = tokio::time::timeout(patience, bootstrap(&from, &to, &request.node, &store));
    let hint = async {
        tokio::time::sleep(APPROVAL).await;
        println!(
            "[kubelet-start] Still waiting: does somebody have to approve (\"kubectl get csr\" shows the request)?"
        );
        std::future::pending::<Infallible>().await
    };
    let outcome = tokio::select! {
        outcome = asked => outcome,
        never = hint => match never {},
    };
    match outcome {
        Ok(outcome) => Ok(outcome.context("the node's client certificate")?),
        Err(_) => bail!(
            "the node's client certificate was not issued within {} s: is kube-controller-manager running, and does it \
             approve (\"kubectl get csr\" shows the request, \"kubectl certificate approve\" approves it)?",
            patience.as_secs()
        ),
    }
}

/// The error, and that nothing is left, or what is.
fn undone(installation: Installation<'_>, error: anyhow::Error) -> anyhow::Error {
    match installation.undo().into_iter().next() {
        None => error,
        Some(rest) => anyhow!("{error:#}; and not everything could be undone: {rest}"),
    }
}

/// Lets systemd start the agent, or returns what it is to be run with in this process.
fn start(paths: &Paths, lock: Lock, mut installation: Installation<'_>, program: &Path) -> Result<Option<Agent>> {
    println!("[kubelet-start] Starting the kubelet");
    let started = agent_of(paths).and_then(|options| Ok(installation.start(program).map(|()| options)?));
    let options = match started {
        Ok(options) => options,
        Err(error) => return Err(undone(installation, error)),
    };
    tell(installation.journal(), &options.runtime.cni_conf_dir);
    let in_foreground = installation.journal().unit.is_none();
    drop(lock);
    Ok(in_foreground.then_some(options))
}

fn tell(journal: &Journal, cni: &Path) {
    println!(
        "\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was \
         received.\n* The Kubelet was informed of the new secure connection details.\n"
    );
    let configured = std::fs::read_dir(cni).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            [".conflist", ".conf", ".json"].iter().any(|end| name.to_string_lossy().ends_with(end))
        })
    });
    let waits =
        if configured { String::new() } else { format!(" Ready waits for a CNI configuration in {}.", cni.display()) };
    println!("Joined {} as node {}.{waits}", journal.describe(), journal.node);
    match &journal.unit {
        Some(unit) => {
            println!("The agent runs as {}; `berth status` shows how it is, `berth leave` takes it out.", unit.name)
        }
        None => println!(
            "There is no systemd here: the agent runs in the foreground, Ctrl-C ends it and leaves its pods running. \
             `berth status` shows how it is, `berth leave` takes it out."
        ),
    }
}

/// The agent's arguments, as the unit has them.
pub(crate) fn arguments(paths: &Paths) -> Result<Vec<String>> {
    let file = paths.flags();
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let flags = read_flags(&text).map_err(|reason| anyhow!("{}: {reason}", file.display()))?;
    let path = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    let mut arguments = vec![
        path("bootstrap-kubeconfig", paths.bootstrap_kubeconfig()),
        path("kubeconfig", paths.kubeconfig()),
        path("config", paths.config()),
    ];
    arguments.extend(flags);
    Ok(arguments)
}

/// The agent's options, as the unit has them.
pub(crate) fn agent_of(paths: &Paths) -> Result<Agent> {
    agent_options(arguments(paths)?)
}

/// What is known about a node that `berth join` made; refuses where there is none.
pub(crate) fn journal(paths: &Paths) -> Result<Journal> {
    match Journal::load(paths)? {
        Some(journal) => Ok(journal),
        None if paths.kubeconfig().exists() => Err(JoinError::Foreign { file: paths.kubeconfig() }.into()),
        None => Err(JoinError::NotJoined.into()),
    }
}

/// Whether a join got as far as having an agent.
pub(crate) fn has_agent(phase: Phase) -> bool {
    phase != Phase::Joining
}
