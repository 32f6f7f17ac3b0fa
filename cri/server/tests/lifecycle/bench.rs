//! A runtime in temporary folders, with what the cases ask of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{Config, Handler, Handlers, Service};
use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use berth_image::import::Layout;
use oci_spec::image::Config as ImageConfig;
use tonic::{Request, Status};

pub(crate) const IMAGE: &str = "berth.test/hello:1";

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) config: Config,
    folder: PathBuf,
    /// Removes the folder at the end, where it is ours to remove.
    guard: Option<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn new(name: &str) -> Self {
        let guard = tempfile::Builder::new().prefix("berth-cri-").tempdir().expect("a temporary folder");
        let parent = format!("/berth-test-cri-{}-{name}", std::process::id());
        let mut bench = Self::at(guard.path(), parent);
        bench.guard = Some(guard);
        bench
    }

    /// The same one in another process.
    pub(crate) fn at(folder: &Path, cgroup_parent: String) -> Self {
        let path = |part: &str| folder.join(part);
        let config = Config {
            root: path("root"),
            state: path("state"),
            cni_conf_dir: path("net.d"),
            cni_bin_dirs: vec![path("bin")],
            cni_cache_dir: path("cni"),
            cdi_spec_dirs: vec![path("cdi"), path("run-cdi")],
            registry_config_dir: path("certs.d"),
            cgroup_parent,
            cgroup_driver: Config::default().cgroup_driver,
            stream_address: Config::default().stream_address,
            handlers: handlers(),
            criu: path("no-criu"),
            images: berth_image::Options {
                unpack: berth_image::unpack::Program {
                    path: std::env::current_exe().expect("our own path"),
                    args: vec!["unpack".into()],
                },
                ..berth_image::Options::default()
            },
        };
        fs::create_dir_all(&config.cni_conf_dir).expect("a folder");
        let bench = Self { config, folder: folder.to_path_buf(), guard: None };
        bench.write_network(&serde_json::json!({
            "type": "bridge", "bridge": "berth-test0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": bench.path("addresses"),
                "ranges": [[{"subnet": "10.211.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }));
        bench
    }

    /// Puts a network of one plugin in force.
    pub(crate) fn write_network(&self, plugin: &serde_json::Value) {
        let list = serde_json::json!({"cniVersion": "1.1.0", "name": "test", "plugins": [plugin]});
        let temporary = self.config.cni_conf_dir.join("net.temp");
        fs::write(&temporary, list.to_string()).expect("a network");
        fs::rename(temporary, self.config.cni_conf_dir.join("net.conflist")).expect("a network");
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.folder.join(part)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) async fn open(&self) -> Client {
        let service = Service::open(self.config.clone()).await.expect("the service opens");
        let mut config = ImageConfig::default();
        config.set_entrypoint(Some(vec!["/hello".to_owned()]));
        let layout = Layout::single_binary("hello", berth_carried::HELLO, &config).expect("an image");
        service.images().import_layout(IMAGE, layout, true).await.expect("imported");
        Client { service, logs: self.path("logs") }
    }

    /// Nothing of ours is left on the machine.
    pub(crate) fn assert_clean(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let state = self.config.state.to_string_lossy().into_owned();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&state)).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        for folder in ["state/sandboxes", "state/netns", "state/oci", "state/cni", "root/containers", "cni/results"] {
            let left: Vec<_> =
                fs::read_dir(self.path(folder)).into_iter().flatten().flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "left in {folder}: {left:?}");
        }
        let addresses = fs::read_dir(self.path("addresses/test")).into_iter().flatten().flatten();
        let addresses: Vec<_> =
            addresses.map(|e| e.file_name()).filter(|name| name.to_string_lossy().starts_with("10.")).collect();
        assert!(addresses.is_empty(), "addresses are left: {addresses:?}");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
        assert_eq!(self.shims(), Vec::<i32>::new(), "shims are left");
        let links = Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().expect("ip");
        assert_eq!(String::from_utf8_lossy(&links.stdout), "", "links are left");
    }

    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let parent = &self.config.cgroup_parent[1..];
        let roots = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path());
        roots
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|root| root.join(parent))
            .filter(|path| path.exists())
            .collect()
    }

    /// The processes of our shims.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let sandboxes = self.path("state/sandboxes").to_string_lossy().into_owned();
        let ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&sandboxes)
        };
        let pids = fs::read_dir("/proc").expect("proc").flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }
}

/// Other runtimes than the built-in one: one that there is, one that fails and one that is missing.
fn handlers() -> Handlers {
    let handler = |name: &str, path: &str| (name.to_owned(), Handler { path: path.into(), args: Vec::new() });
    let others = [handler("runc", "/usr/sbin/runc"), handler("fails", "/bin/false"), handler("missing", "/no/such")];
    Handlers { others: BTreeMap::from(others), ..Handlers::default() }
}

impl Drop for Bench {
    /// What a case that failed left running; namespaces and mounts go with this process.
    fn drop(&mut self) {
        if self.guard.is_none() {
            return;
        }
        for pid in self.shims() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let host = berth_cgroup::Host::detect().expect("cgroups");
        let left = host.open(&self.config.cgroup_parent).expect("a path");
        left.kill().and_then(|()| left.remove()).expect("our cgroups go");
    }
}

/// Calls as a kubelet makes them.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) service: Arc<Service>,
    pub(crate) logs: PathBuf,
}

pub(crate) fn pod(name: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "test".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        ..cri::PodSandboxConfig::default()
    }
}

/// A container that runs a script with the host's programs.
pub(crate) fn script(name: &str, text: &str) -> cri::ContainerConfig {
    let bind = |path: &str| cri::Mount {
        container_path: path.to_owned(),
        host_path: path.to_owned(),
        readonly: true,
        ..cri::Mount::default()
    };
    let there = ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists());
    cri::ContainerConfig {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()],
        mounts: there.map(bind).collect(),
        ..hello(name)
    }
}

/// The same with limits.
pub(crate) fn limited(mut config: cri::ContainerConfig, limits: cri::LinuxContainerResources) -> cri::ContainerConfig {
    config.linux.get_or_insert_default().resources = Some(limits);
    config
}

/// What a cgroup's file says; of v1's `controller`, or of v2. `names` are the files of v1 and of v2.
pub(crate) fn cgroup_file(cgroup: &str, controller: &str, names: (&str, &str)) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let v1 = root.join(controller).join(&cgroup[1..]).join(names.0);
    let path = if v1.exists() { v1 } else { root.join(&cgroup[1..]).join(names.1) };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

pub(crate) fn hello(name: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.to_owned(), ..cri::ImageSpec::default() }),
        log_path: format!("{name}.log"),
        ..cri::ContainerConfig::default()
    }
}

impl Client {
    pub(crate) async fn run(&self, config: cri::PodSandboxConfig) -> Result<String, Status> {
        self.run_with("", config).await
    }

    /// With a runtime handler.
    pub(crate) async fn run_with(&self, handler: &str, mut config: cri::PodSandboxConfig) -> Result<String, Status> {
        config.log_directory = self.logs.to_string_lossy().into_owned();
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(self.service.run_pod_sandbox(Request::new(request)).await?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn create(&self, sandbox: &str, config: cri::ContainerConfig) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.service.create_container(Request::new(request)).await?.into_inner().container_id)
    }

    pub(crate) async fn start(&self, container: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.service.start_container(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn stop(&self, container: &str, timeout: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: container.to_owned(), timeout };
        self.service.stop_container(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn remove(&self, container: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: container.to_owned() };
        self.service.remove_container(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn stop_pod(&self, sandbox: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.service.stop_pod_sandbox(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn remove_pod(&self, sandbox: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.service.remove_pod_sandbox(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, Status> {
        let cmd = command.iter().map(|part| (*part).to_owned()).collect();
        let request = cri::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout };
        Ok(self.service.exec_sync(Request::new(request)).await?.into_inner())
    }

    pub(crate) async fn status(&self, container: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let response = self.service.container_status(Request::new(request)).await?.into_inner();
        Ok(response.status.expect("a status"))
    }

    pub(crate) async fn pod_status(&self, sandbox: &str) -> Result<cri::PodSandboxStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
        let response = self.service.pod_sandbox_status(Request::new(request)).await?.into_inner();
        Ok(response.status.expect("a status"))
    }

    /// Its status once it has exited.
    pub(crate) async fn exited(&self, container: &str) -> cri::ContainerStatus {
        let mut events = self.service.events();
        let wait = async {
            loop {
                let status = self.status(container).await.expect("a status");
                if status.state() == cri::ContainerState::ContainerExited {
                    return status;
                }
                let _ = events.recv().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the container exits")
    }

    /// Waits for a line of a container's log.
    pub(crate) async fn said(&self, name: &str, words: &str) {
        let wait = async {
            while !self.log(name).contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        waited.unwrap_or_else(|_| panic!("{name} does not say {words:?}: {}", self.log(name)));
    }

    /// The verbose part of a container's status.
    pub(crate) async fn inspect(&self, container: &str) -> serde_json::Value {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: true };
        let response = self.service.container_status(Request::new(request)).await.expect("a status").into_inner();
        serde_json::from_str(&response.info["info"]).expect("JSON")
    }

    /// The verbose part of a sandbox's status.
    pub(crate) async fn inspect_pod(&self, sandbox: &str) -> serde_json::Value {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
        let response = self.service.pod_sandbox_status(Request::new(request)).await.expect("a status").into_inner();
        serde_json::from_str(&response.info["info"]).expect("JSON")
    }

    pub(crate) async fn update(&self, container: &str, limits: cri::LinuxContainerResources) -> Result<(), Status> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(limits),
            ..cri::UpdateContainerResourcesRequest::default()
        };
        self.service.update_container_resources(Request::new(request)).await.map(drop)
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default()
    }
}
