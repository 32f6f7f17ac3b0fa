//! Tables of rules and golden files. The golden files hold the whole OCI configuration of three typical containers and
//! were read by people; a change in one is a change in what every container gets.

mod containers;
mod golden;
mod hostile;
mod mounts;
mod pods;
mod sandboxes;
mod volumes;

use berth_cri_proto::v1 as cri;
use berth_plan::container as plan;
use oci_spec::runtime as oci;

use super::*;
use crate::{
    ConfigError, HostFacts, ImageView, Paths, SandboxView, capabilities,
    host::{Arch, CgroupDriver, CgroupLayout, UnifiedOptions},
    seccomp::Filters,
    view::{HostPath, Propagation, VolumeImage},
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn facts() -> HostFacts {
    HostFacts {
        arch: Arch::X86_64,
        cgroups: CgroupLayout::V2 { unified: UnifiedOptions { nsdelegate: true, memory_recursiveprot: true } },
        bounding: capabilities::ALL,
        can_lower_oom: true,
        oom_score_adj: 0,
        apparmor: false,
        selinux: false,
        recursive_read_only: true,
        hostname: "node-1".into(),
        filters: Filters::default(),
    }
}

fn sandbox_config() -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: "web".into(),
            uid: "uid-1".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "web-0".into(),
        log_directory: "/var/log/pods/default_web_uid-1".into(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/besteffort/poduid-1".into(),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn image() -> ImageView {
    ImageView {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["--serve".into()],
        env: vec!["PATH=/bin".into(), "FROM=image".into()],
        passwd: "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n".into(),
        group: "extra:x:50:app\n".into(),
        ..ImageView::default()
    }
}

fn paths() -> Paths {
    Paths {
        container: ID.into(),
        lower: vec!["/layers/2".into(), "/layers/1".into()],
        upper: "/c/upper".into(),
        work: "/c/work".into(),
        log_path: "/var/log/pods/default_web_uid-1/app/0.log".into(),
        resolv_conf: "/s/resolv.conf".into(),
        hostname: "/s/hostname".into(),
        hosts: "/s/hosts".into(),
        shm: "/s/shm".into(),
        host: Default::default(),
    }
}

/// A container in a sandbox, with everything that can be varied.
struct Case {
    driver: CgroupDriver,
    facts: HostFacts,
    sandbox: cri::PodSandboxConfig,
    config: cri::ContainerConfig,
    image: ImageView,
    paths: Paths,
}

impl Case {
    fn new() -> Self {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "registry/app:1".into(), ..Default::default() }),
            linux: Some(cri::LinuxContainerConfig {
                resources: None,
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        Self {
            driver: CgroupDriver::Cgroupfs,
            facts: facts(),
            sandbox: sandbox_config(),
            config,
            image: image(),
            paths: paths(),
        }
    }

    fn security(&mut self) -> &mut cri::LinuxContainerSecurityContext {
        self.config.linux.get_or_insert_default().security_context.get_or_insert_default()
    }

    fn sandbox_security(&mut self) -> &mut cri::LinuxSandboxSecurityContext {
        self.sandbox.linux.get_or_insert_default().security_context.get_or_insert_default()
    }

    fn sandbox_namespaces(&mut self) -> &mut cri::NamespaceOption {
        self.sandbox_security().namespace_options.get_or_insert_default()
    }

    /// Adds a mount of a host folder that exists.
    fn mount(&mut self, host: &str, container: &str) -> &mut cri::Mount {
        self.paths
            .host
            .mounts
            .insert(host.to_owned(), HostPath { resolved: host.to_owned(), propagation: Propagation::Private });
        self.config.mounts.push(cri::Mount {
            host_path: host.into(),
            container_path: container.into(),
            ..Default::default()
        });
        self.config.mounts.last_mut().expect("just pushed")
    }

    fn compile(&self) -> Result<(oci::Spec, plan::Container), ConfigError> {
        let plan = sandbox(&self.sandbox, self.driver)?;
        let running = [("target".to_owned(), 99)].into();
        let view = SandboxView {
            id: "sandbox-1",
            name: "web",
            namespace: "default",
            uid: "uid-1",
            holder: 77,
            init: 78,
            running: &running,
            plan: &plan,
        };
        container(&self.facts, &view, &self.config, &self.image, &self.paths)
    }

    fn plan(&self) -> plan::Container {
        match self.compile() {
            Ok((_, plan)) => plan,
            Err(error) => panic!("refused: {error}"),
        }
    }

    /// The field that the refusal names.
    fn refused(&self) -> String {
        match self.compile() {
            Ok((spec, _)) => panic!("accepted: {spec:?}"),
            Err(error) => {
                assert!(!error.reason.is_empty() && !error.remedy.is_empty(), "{error:?}");
                error.field
            }
        }
    }
}

/// A case with one change.
fn case(change: impl FnOnce(&mut Case)) -> Case {
    let mut case = Case::new();
    change(&mut case);
    case
}
