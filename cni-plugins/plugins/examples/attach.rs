//! Prints how long attaching and detaching take, in-process, in namespaces of its own: `attach [ROUNDS]`. First on a host
//! with another pod, then on one without: there the rule tables come and go each time.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use berth_cni::{Attachment, NetworkList, Plugins, Runtime, RuntimeError};
use berth_sys::netns::NetNs;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(50), |rounds| rounds.parse())?;
    NetNs::fresh()?.run(|| measure(rounds))?
}

fn measure(rounds: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = std::env::temp_dir().join(format!("berth-cni-attach-{}", std::process::id()));
    let plugins = Plugins {
        builtin: berth_cni_plugins::builtin,
        bin_dirs: Vec::new(),
        running_dir: None,
        timeout: Duration::from_secs(60),
    };
    let runtime = Runtime::new(plugins, &dir.join("cni"));
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "br-pods", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": dir.join("networks"), "subnet": "10.88.0.0/16"}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let list = NetworkList::parse(list.to_string().as_bytes())?;
    let resident = NetNs::fresh()?;
    let neighbour = attachment("resident", &resident, 8079);
    runtime.add(&list, &neighbour)?;
    rounds_of(&runtime, &list, rounds, "with a neighbour")?;
    runtime.del(&list, &neighbour)?;
    rounds_of(&runtime, &list, rounds, "alone")?;
    berth_cni_plugins::withdraw(&list)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn attachment(id: &str, pod: &NetNs, port: u16) -> Attachment {
    let capabilities = json!({"portMappings": [{"hostPort": port, "containerPort": 80}]});
    Attachment {
        container_id: id.to_owned(),
        netns: Some(format!("/proc/self/fd/{}", pod.as_fd().as_raw_fd()).into()),
        ifname: "eth0".to_owned(),
        args: Vec::new(),
        capabilities: capabilities.as_object().cloned().unwrap_or_default(),
    }
}

fn rounds_of(runtime: &Runtime, list: &NetworkList, rounds: usize, how: &str) -> Result<(), RuntimeError> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let Ok(pod) = NetNs::fresh() else { return Ok(()) };
        let attachment = attachment(&format!("c{round}"), &pod, 8080);
        let start = Instant::now();
        runtime.add(list, &attachment)?;
        let added = Instant::now();
        runtime.del(list, &attachment)?;
        times[0].push(added - start);
        times[1].push(added.elapsed());
    }
    for (verb, mut times) in ["ADD", "DEL"].into_iter().zip(times) {
        times.sort();
        println!(
            "{verb} {how}: median {:?}, p90 {:?}, max {:?}",
            times[rounds / 2],
            times[rounds * 9 / 10],
            times[rounds - 1]
        );
    }
    Ok(())
}
