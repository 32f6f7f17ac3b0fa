//! A proxy between a kubelet's role and `berth cri` cuts calls, and hundreds of pods' lives end clean all the same.

mod calls;
mod fate;
mod frame;
mod kubelet;
mod messages;
mod plan;
mod proxy;
mod survive;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::cri::{self, Client, Cri, Start, config};
use crate::leak::Picture;
use crate::registry::{self, Registry};
use crate::{command, paths};
use calls::{Caller, Outcome, Tally};
use fate::Fates;
use kubelet::{Kubelet, Pods};
use proxy::Proxy;

/// From so many pods on, every kind of cut is sure to come.
const MANY: usize = 50;
/// How long what was begun by calls that were cut may go on after the last pod.
const SETTLE: Duration = Duration::from_secs(60);
/// Numbers of pods that have a story of their own.
const WARM: usize = 10_000;
const SURVIVOR: usize = 10_001;
const LARGE: usize = 10_002;

/// How much is played.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lifecycles.
    pub pods: usize,
    /// Of which so many at a time.
    pub at_once: usize,
    /// What the dice begin with; any when there is none. It fixes which cuts come in which order, not which calls they
    /// meet.
    pub seed: Option<u64>,
}

/// Everything of the scenario that has a place.
struct Scene {
    dir: PathBuf,
    image: String,
    logs: String,
    tally: Arc<Tally>,
    start: Instant,
}

/// Plays it; call it in a house, on a single thread.
///
/// # Errors
/// What was left, what hung, or what the runtime must not answer.
pub fn play(options: Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("cri-proxy: seed {seed} (--seed {seed} deals the same again)");
    let dir = paths::scratch("cri-proxy")?;
    let registry = Registry::start(&dir.join("registry"), "127.0.0.1:5000")?;
    registry.push_standard()?;
    let scene = Scene {
        image: registry.name(registry::BUSYBOX),
        logs: dir.join("logs").display().to_string(),
        tally: Arc::new(Tally::default()),
        start: Instant::now(),
        dir,
    };
    fs::create_dir_all(&scene.logs)?;
    let outcome = cri::executor()?.block_on(Box::pin(tell(&scene, options, seed)));
    if outcome.is_err() {
        println!("{}", scene.tally);
        eprintln!("the end of berth cri's log:\n{}", command::tail_of(&scene.dir.join("cri.log")));
    }
    outcome.with_context(|| format!("with seed {seed}"))?;
    registry.stop()?;
    fs::remove_dir_all(&scene.dir)?;
    Ok(())
}

async fn tell(scene: &Scene, options: Options, seed: u64) -> Result<()> {
    let cri = Cri::start(Start::new(&scene.dir))?;
    Box::pin(warm_up(scene, &cri)).await?;
    let folders = cri::folders(&scene.dir);
    let before = Picture::take(&folders)?;

    let quiet = scene.proxy("quiet.sock", &cri, Fates::quiet())?;
    let (cut, eyes) = (scene.caller(quiet.socket())?, scene.caller(cri.socket())?);
    Box::pin(survive::tell(cut, eyes, quiet.fates(), &scene.image, &scene.logs, SURVIVOR)).await?;
    scene.say("the work of each call goes on when its caller is cut off");
    Box::pin(messages::tell(scene.caller(quiet.socket())?, &scene.image, &scene.logs, LARGE)).await?;
    scene.say("large messages pass, those of more than 16 MiB are refused, much output is cut to fit");

    let proxy = scene.proxy("proxy.sock", &cri, Fates::by_dice(seed))?;
    let kubelet = Kubelet {
        socket: proxy.socket().to_owned(),
        image: scene.image.clone(),
        logs: scene.logs.clone(),
        seed,
        tally: Arc::clone(&scene.tally),
        pods: Pods::default(),
    };
    Box::pin(lives(&kubelet, options)).await?;
    let dealt: Vec<String> = proxy.fates().dealt().iter().map(|(fate, count)| format!("{count} {fate}")).collect();
    scene.say(&format!("{} lifecycles are over; calls: {}", options.pods, dealt.join(", ")));
    println!("{}", scene.tally);

    Box::pin(ends_clean(scene, &kubelet, &before, &folders)).await?;
    scene.say("nothing is left: not in the lists, not on the machine");
    for proxy in [&quiet, &proxy] {
        let oversized: Vec<String> =
            proxy.oversized().into_iter().filter(|message| message.starts_with("an answer")).collect();
        ensure!(oversized.is_empty(), "too large for a kubelet: {}", oversized.join(", "));
    }
    if options.pods >= MANY {
        ensure!(proxy.fates().dealt().len() == 6, "not every kind of cut has come: {dealt:?}");
        for outcome in [Outcome::Answered, Outcome::Cut, Outcome::Late] {
            ensure!(scene.tally.sum(outcome) > 0, "no call was {outcome:?}");
        }
    }
    drop((quiet, proxy));
    cri.stop()?;
    Ok(())
}

/// One pod's life without cuts, so that the picture has what a node keeps.
async fn warm_up(scene: &Scene, cri: &Cri) -> Result<()> {
    let mut client = Client::connect(cri.socket(), &scene.image, Path::new(&scene.logs)).await?;
    client.pull().await?;
    let (sandbox, _) = client.run_sandbox(WARM).await?;
    let (container, _) = client.start_container(&sandbox, config::UNTIL_TERM).await?;
    client.exec_true(&container).await?;
    client.remove_sandbox(&sandbox).await?;
    clear(scene)
}

/// What is the kubelet's own: the pods' cgroups and logs.
fn clear(scene: &Scene) -> Result<()> {
    cri::remove_cgroups();
    kubelet::remove_logs(Path::new(&scene.logs))
}

async fn lives(kubelet: &Kubelet, options: Options) -> Result<()> {
    let collector = kubelet.clone();
    let collecting = tokio::spawn(async move { collector.collect().await });
    let mut workers = JoinSet::new();
    let mut failed = Vec::new();
    for number in 0..options.pods {
        while workers.len() >= options.at_once.max(1) {
            note(workers.join_next().await, &mut failed)?;
        }
        let kubelet = kubelet.clone();
        workers.spawn(async move { Box::pin(kubelet.live(number)).await });
    }
    while !workers.is_empty() {
        note(workers.join_next().await, &mut failed)?;
    }
    collecting.abort();
    ensure!(failed.is_empty(), "{} of {} pods failed:\n{}", failed.len(), options.pods, failed.join("\n"));
    Ok(())
}

fn note(ended: Option<Result<Result<()>, tokio::task::JoinError>>, failed: &mut Vec<String>) -> Result<()> {
    if let Some(Err(error)) = ended.transpose()? {
        failed.push(format!("{error:#}"));
    }
    Ok(())
}

/// What calls that were cut have begun may still come to be: it is removed like everything else, until nothing comes.
async fn ends_clean(scene: &Scene, kubelet: &Kubelet, before: &Picture, folders: &crate::leak::Folders) -> Result<()> {
    let start = Instant::now();
    loop {
        kubelet.collect_all().await?;
        clear(scene)?;
        let outcome = before.compare(&Picture::take(folders)?, &[]);
        if outcome.is_ok() {
            break;
        }
        if start.elapsed() > SETTLE {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let wrongs = scene.tally.wrongs();
    ensure!(wrongs.is_empty(), "answers that must not be:\n{}", wrongs.join("\n"));
    Ok(())
}

impl Scene {
    fn say(&self, what: &str) {
        println!("{:>6.1} s  cri-proxy: {what}", self.start.elapsed().as_secs_f64());
    }

    fn proxy(&self, name: &str, cri: &Cri, fates: Fates) -> Result<Proxy> {
        Proxy::start(&self.dir.join(name), cri.socket(), fates)
    }

    /// Whose calls are not cut short, and not counted with those of the pods.
    fn caller(&self, socket: &Path) -> Result<Caller> {
        Caller::new(socket, None, &Arc::new(Tally::default()))
    }
}
