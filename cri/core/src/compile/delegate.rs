//! Containers that another OCI runtime makes: its command lines, and what it must be told differently.
//!
//! The commands are those of the runtime command line interface that runc has and that crun, youki and runsc have from it:
//! `--root DIR --log FILE --log-format json` before `create`, `start`, `exec` and `delete`. Names of files are relative to
//! the bundle, the commands' working folder.

use berth_plan::container as plan;
use oci_spec::runtime as oci;

use super::lower::{IMAGE, IMAGE_LAYER, IMAGE_SUB_PATH};
use crate::{error::ConfigError, host::HostFacts};

/// The version of the specification that a configuration names. It has nothing of later ones, and crun before 1.9 takes
/// no other than 1.0.
const VERSION: &str = "1.0.2";

/// The file of a bundle with the container's OCI configuration.
pub const CONFIG: &str = "config.json";
/// The file of a bundle that `create` and `start` log to.
pub const LOG: &str = "log.json";
/// The folder of a bundle that the root file system is mounted on.
pub const ROOTFS: &str = "rootfs";
/// The folder of a bundle where the images of volumes are, each under its number among the plan's.
pub const IMAGES: &str = "images";

/// Another runtime, for one container.
#[derive(Debug, Clone, Copy)]
pub struct Runtime<'a> {
    /// The handler's name.
    pub handler: &'a str,
    /// Absolute.
    pub program: &'a str,
    /// What comes before everything else.
    pub args: &'a [String],
    /// Where it keeps its state.
    pub root: &'a str,
    /// The container's bundle.
    pub bundle: &'a str,
    /// Whether it knows recursive read-only mounts.
    pub recursive_read_only: bool,
    /// Whether it makes cgroups through systemd.
    pub systemd_cgroup: bool,
}

impl Runtime<'_> {
    fn command(&self, log: Option<&str>, words: &[&str]) -> Vec<String> {
        let mut command = vec![self.program.to_owned()];
        command.extend(self.args.iter().cloned());
        command.extend(["--root", self.root].map(str::to_owned));
        if self.systemd_cgroup {
            command.push("--systemd-cgroup".to_owned());
        }
        if let Some(log) = log {
            command.extend(["--log", log, "--log-format", "json"].map(str::to_owned));
        }
        command.extend(words.iter().map(|word| (*word).to_owned()));
        command
    }

    /// Removes whatever it keeps of a container, running or not, known or not.
    pub fn deletion(&self, id: &str) -> Vec<String> {
        self.command(None, &["delete", "--force", id])
    }

    /// Has it write a running container's state to `images`, and criu's log and figures to `work`; the container runs on.
    pub fn checkpoint(&self, id: &str, images: &str, work: &str, terminal: bool) -> Vec<String> {
        let mut words = vec!["checkpoint", "--leave-running", "--image-path", images, "--work-path", work];
        words.extend(["--tcp-established", "--ext-unix-sk"]);
        if terminal {
            words.push("--shell-job");
        }
        words.push(id);
        self.command(None, &words)
    }
}

/// Has another runtime make a compiled container.
pub fn container(
    facts: &HostFacts,
    runtime: &Runtime<'_>,
    spec: &mut oci::Spec,
    plan: &mut plan::Container,
) -> Result<(), ConfigError> {
    check(runtime, spec, plan)?;
    bind_images(runtime, spec);
    spec.set_version(VERSION.to_owned());
    if let Some(process) = spec.process_mut() {
        // What starts it is the shim, whose own value is not the container's.
        let floor = if facts.can_lower_oom { i32::MIN } else { facts.oom_score_adj };
        process.set_oom_score_adj(Some(process.oom_score_adj().unwrap_or(0).max(floor)));
    }
    plan.namespaces = plan::NewNamespaces { mount: true, ..plan::NewNamespaces::default() };
    // The configuration names them.
    plan.pid_from = plan::PidFrom::Shim;
    let console = if plan.process.terminal { "console.sock" } else { "" };
    let mut create = vec!["create", "--bundle", ".", "--pid-file", "pid"];
    if !console.is_empty() {
        create.extend(["--console-socket", console]);
    }
    create.push(&plan.id);
    plan.delegate = Some(plan::Delegate {
        folder: runtime.bundle.to_owned(),
        commands: vec![runtime.command(Some(LOG), &create), runtime.command(Some(LOG), &["start", &plan.id])],
        pid_file: "pid".to_owned(),
        console: console.to_owned(),
    });
    Ok(())
}

/// A runtime knows no mounts of images: the executor puts them together beside the root file system, and it binds them.
fn bind_images(runtime: &Runtime<'_>, spec: &mut oci::Spec) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let images = mounts.iter_mut().filter(|mount| mount.typ().as_deref() == Some(IMAGE));
    for (number, mount) in images.enumerate() {
        let ours = |option: &String| option.starts_with(IMAGE_LAYER) || option.starts_with(IMAGE_SUB_PATH);
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| !ours(option));
        options.push("bind".to_owned());
        mount.set_typ(Some("bind".to_owned()));
        mount.set_source(Some(format!("{}/{IMAGES}/{number}", runtime.bundle).into()));
        mount.set_options(Some(options));
    }
    spec.set_mounts(Some(mounts));
}

fn check(runtime: &Runtime<'_>, spec: &oci::Spec, plan: &plan::Container) -> Result<(), ConfigError> {
    let handler = runtime.handler;
    if plan.user.is_some() {
        return Err(ConfigError::new(
            super::sandbox::USERNS,
            format!("handler {handler:?} can't make containers in a user namespace of the pod"),
            "use the built-in runtime, or the node's user namespace",
        ));
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let recursive = mount.options().iter().flatten().any(|option| option == "rro");
        if recursive && !runtime.recursive_read_only {
            return Err(ConfigError::new(
                format!("mounts[{index}]"),
                format!("handler {handler:?} can't make recursive read-only mounts"),
                "use a plain read-only mount, or the built-in runtime",
            ));
        }
    }
    Ok(())
}

/// The files of one exec in the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFiles {
    pub process: String,
    pub pid: String,
    pub log: String,
    pub console: String,
}

impl ExecFiles {
    pub fn new(id: &str) -> Self {
        let name = |end: &str| format!("exec-{id}.{end}");
        Self { process: name("json"), pid: name("pid"), log: name("log"), console: name("sock") }
    }

    /// All that may be there.
    pub fn names(&self) -> [&str; 4] {
        [&self.process, &self.pid, &self.log, &self.console]
    }
}

/// Has another runtime start a compiled exec; `process` is that of the container's OCI configuration. The answer is the
/// exec's, for [`ExecFiles::process`].
pub fn exec(runtime: &Runtime<'_>, process: &oci::Process, plan: &mut plan::Exec) -> oci::Process {
    let files = ExecFiles::new(&plan.id);
    let mut process = process.clone();
    process
        .set_args(Some(plan.process.args.clone()))
        .set_env(Some(plan.process.env.clone()))
        .set_terminal(plan.process.terminal.then_some(true));
    let console = if plan.process.terminal { files.console.as_str() } else { "" };
    let mut words = vec!["exec", "--detach", "--process", &files.process, "--pid-file", &files.pid];
    if !console.is_empty() {
        words.extend(["--console-socket", console]);
    }
    words.push(&plan.container);
    plan.delegate = Some(plan::Delegate {
        folder: runtime.bundle.to_owned(),
        commands: vec![runtime.command(Some(&files.log), &words)],
        pid_file: files.pid.clone(),
        console: console.to_owned(),
    });
    process
}

/// What a runtime that was asked for its `features` says of itself (the features document of the OCI runtime
/// specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    pub recursive_read_only: bool,
}

impl Features {
    /// Reads the document. The error is for people.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            oci_version_min: Option<String>,
            mount_options: Option<Vec<String>>,
        }
        let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if document.oci_version_min.is_none() {
            return Err("ociVersionMin is missing".to_owned());
        }
        let knows = |word: &str| document.mount_options.iter().flatten().any(|option| option == word);
        Ok(Self { recursive_read_only: knows("rro") })
    }
}

/// The last error in a log that a runtime wrote in JSON lines.
pub fn complaint(log: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.find(|line| matches!(line.level.as_str(), "error" | "fatal")).map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_the_document() {
        let parse = |text: &str| Features::parse(text.as_bytes());
        let with = parse(r#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{}}"#);
        assert_eq!(with, Ok(Features { recursive_read_only: true }));
        let without = parse(r#"{"ociVersionMin":"1.0.0","mountOptions":["ro"]}"#);
        assert_eq!(without, Ok(Features::default()));
        assert_eq!(parse(r#"{"ociVersionMin":"1.0.0"}"#), Ok(Features::default()));
        parse("{}").expect_err("no features document");
        parse("runc: unknown command").expect_err("no JSON");
    }

    #[test]
    fn the_last_error_of_a_log_counts() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"one\",\"time\":\"t\"}\nnoise\n\
                   {\"level\":\"error\",\"msg\":\"two\"}\n{\"level\":\"debug\",\"msg\":\"d\"}\n";
        assert_eq!(complaint(log).as_deref(), Some("two"));
        assert_eq!(complaint("noise\n"), None);
    }

    #[test]
    fn an_exec_is_the_containers_process_with_another_command() {
        let args = ["--debug".to_owned()];
        let runtime = Runtime {
            handler: "x",
            program: "/x",
            args: &args,
            root: "/root",
            bundle: "/bundle",
            recursive_read_only: false,
            systemd_cgroup: false,
        };
        let mut process = oci::Process::default();
        process.set_cwd("/work".into()).set_env(Some(vec!["A=1".to_owned()]));
        let mut plan = plan::Exec {
            id: "e".to_owned(),
            container: "c".to_owned(),
            delegate: None,
            user: None,
            process: plan::Process {
                args: vec!["ls".to_owned()],
                env: vec!["A=1".to_owned(), "TERM=xterm".to_owned()],
                terminal: true,
                ..plan::Process::default()
            },
        };
        let made = exec(&runtime, &process, &mut plan);
        assert_eq!((made.args().as_deref(), made.terminal()), (Some(&["ls".to_owned()][..]), Some(true)));
        assert_eq!(made.cwd(), process.cwd());
        let delegate = plan.delegate.expect("a delegate");
        assert_eq!((delegate.folder.as_str(), delegate.console.as_str()), ("/bundle", "exec-e.sock"));
        let line = "/x --debug --root /root --log exec-e.log --log-format json exec --detach --process exec-e.json \
                    --pid-file exec-e.pid --console-socket exec-e.sock c";
        assert_eq!(delegate.commands[0].join(" "), line);
        assert_eq!(runtime.deletion("c").join(" "), "/x --debug --root /root delete --force c");
    }
}
