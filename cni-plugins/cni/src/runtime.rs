//! The runtime side: operations on attachments over the plugins of a network.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::conf::{PluginConf, is_name};
use crate::turn::Turns;
use crate::{Cache, Cached, CniResult, Command, NetworkList, Plugins, Request, RuntimeError, ValidAttachment, Version};

/// One interface of one pod on a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// The sandbox's id.
    pub container_id: String,
    /// Path of the pod's network namespace; `None` when there is none any more.
    pub netns: Option<PathBuf>,
    /// Name of the interface in the pod.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// Capability arguments by name; each plugin is sent those that its configuration declares.
    pub capabilities: Map<String, Value>,
}

/// Calls plugins. One per cache folder and process: it keeps two operations on one attachment apart.
#[derive(Debug)]
pub struct Runtime {
    plugins: Plugins,
    cache: Cache,
    turns: Turns,
}

impl Runtime {
    /// `cache_dir` is libcni's, `/var/lib/cni`.
    pub fn new(plugins: Plugins, cache_dir: &Path) -> Self {
        Self { plugins, cache: Cache::new(cache_dir), turns: Turns::default() }
    }

    /// Attaches: calls the plugins in order. On an error what was done is undone.
    ///
    /// An ADD of the same attachment that never ended, in this process or before it, is undone first; one that did end
    /// must be followed by a DEL, and is left as it is.
    ///
    /// # Errors
    /// The plugin's error; when undoing failed too, [`RuntimeError::Several`] with the cause first.
    pub fn add(&self, list: &NetworkList, attachment: &Attachment) -> Result<CniResult, RuntimeError> {
        attachment.check()?;
        let _turn = self.turns.attachment(&list.name, &attachment.container_id, &attachment.ifname);
        match self.cached(list, attachment) {
            None => {}
            Some(Cached { list, attachment, result: None }) => self.detach(&list, &attachment, None)?,
            // Not even an undoing may follow: it would take the first one's network away.
            Some(Cached { result: Some(_), .. }) => {
                let reason = "it is attached already";
                return Err(RuntimeError::Attachment {
                    field: "container id",
                    value: attachment.container_id.clone(),
                    reason,
                });
            }
        }
        self.cache.write(list, attachment, None)?;
        let added = self.attach(list, attachment).and_then(|result| {
            self.cache.write(list, attachment, Some(&result))?;
            Ok(result)
        });
        added.map_err(|cause| match self.detach(list, attachment, None) {
            Ok(()) => cause,
            Err(undoing) => RuntimeError::Several(vec![cause, undoing]),
        })
    }

    /// Detaches: calls the plugins in reverse order, every one of them, whatever the others answer. The configuration is
    /// the one that the attachment was added with, when the cache has it; else `list`. Repeating it is fine.
    ///
    /// # Errors
    /// Every plugin's error. The cache then still knows the attachment.
    pub fn del(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), RuntimeError> {
        attachment.check()?;
        let _turn = self.turns.attachment(&list.name, &attachment.container_id, &attachment.ifname);
        self.detach_cached(list, attachment)
    }

    /// Detaches whatever the cache knows of a container, on all networks.
    ///
    /// # Errors
    /// As [`Runtime::del`], over all attachments.
    pub fn del_container(&self, container_id: &str) -> Result<(), RuntimeError> {
        let known = self.cache.list().into_iter().filter(|cached| cached.attachment.container_id == container_id);
        let errors = known.filter_map(|cached| {
            let attachment = Attachment { netns: still_there(cached.attachment.netns.clone()), ..cached.attachment };
            self.del(&cached.list, &attachment).err()
        });
        RuntimeError::collect(errors.collect())
    }

    /// Checks that the attachment is as its ADD left it.
    ///
    /// # Errors
    /// The first plugin's error.
    pub fn check(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), RuntimeError> {
        attachment.check()?;
        if list.disable_check || !list.cni_version.has_check() {
            return Ok(());
        }
        let _turn = self.turns.attachment(&list.name, &attachment.container_id, &attachment.ifname);
        let result = self.cached(list, attachment).and_then(|cached| cached.result);
        for plugin in &list.plugins {
            self.call(list, plugin, attachment, Command::Check, result.clone())?;
        }
        Ok(())
    }

    /// Releases everything on the network that belongs to none of the attachments in `valid`: DEL for those that the
    /// cache knows, then GC, which finds what no cache knows. Continues past errors.
    ///
    /// # Errors
    /// Every error.
    pub fn gc(&self, list: &NetworkList, valid: &[ValidAttachment]) -> Result<(), RuntimeError> {
        let _turn = self.turns.network(&list.name);
        let keep: BTreeSet<_> = valid.iter().map(|valid| (&*valid.container_id, &*valid.ifname)).collect();
        let mut errors = Vec::new();
        for Cached { list: with, attachment, result } in self.cache.list() {
            if with.name == list.name && !keep.contains(&(&*attachment.container_id, &*attachment.ifname)) {
                let attachment = Attachment { netns: still_there(attachment.netns.clone()), ..attachment };
                errors.extend(self.detach(&with, &attachment, result).err());
            }
        }
        if !list.disable_gc && list.cni_version.has_gc_and_status() {
            for plugin in &list.plugins {
                let mut request = self.request(list, plugin, None, Command::Gc, None);
                for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    request.config.insert(key.to_owned(), json!(valid));
                }
                errors.extend(self.run(plugin, &request).err());
            }
        }
        RuntimeError::collect(errors)
    }

    /// Whether the network can take attachments.
    ///
    /// # Errors
    /// The first plugin's error.
    pub fn status(&self, list: &NetworkList) -> Result<(), RuntimeError> {
        if list.cni_version.has_gc_and_status() {
            for plugin in &list.plugins {
                self.run(plugin, &self.request(list, plugin, None, Command::Status, None))?;
            }
        }
        Ok(())
    }

    /// Every attachment that the cache knows, those whose ADD never ended included.
    pub fn attachments(&self) -> Vec<Cached> {
        self.cache.list()
    }

    fn cached(&self, list: &NetworkList, attachment: &Attachment) -> Option<Cached> {
        self.cache.read(&list.name, &attachment.container_id, &attachment.ifname)
    }

    fn attach(&self, list: &NetworkList, attachment: &Attachment) -> Result<CniResult, RuntimeError> {
        let mut result = None;
        for plugin in &list.plugins {
            // A plugin that answers nothing (a chained one may) leaves the result as it was.
            result = self.call(list, plugin, attachment, Command::Add, result.clone())?.or(result);
        }
        Ok(result.unwrap_or_default())
    }

    fn detach_cached(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), RuntimeError> {
        match self.cached(list, attachment) {
            None => self.detach(list, attachment, None),
            Some(Cached { list, attachment: added, result }) => {
                self.detach(&list, &Attachment { netns: attachment.netns.clone(), ..added }, result)
            }
        }
    }

    fn detach(
        &self,
        list: &NetworkList,
        attachment: &Attachment,
        result: Option<CniResult>,
    ) -> Result<(), RuntimeError> {
        let result = result.filter(|_| list.cni_version >= Version::V0_4_0);
        let calls = list.plugins.iter().rev();
        let errors = calls.filter_map(|plugin| self.call(list, plugin, attachment, Command::Del, result.clone()).err());
        RuntimeError::collect(errors.collect())?;
        self.cache.remove(&list.name, &attachment.container_id, &attachment.ifname)
    }

    fn call(
        &self,
        list: &NetworkList,
        plugin: &PluginConf,
        attachment: &Attachment,
        command: Command,
        prev_result: Option<CniResult>,
    ) -> Result<Option<CniResult>, RuntimeError> {
        let mut request = self.request(list, plugin, Some(attachment), command, prev_result);
        let wanted = plugin.capabilities.iter().filter(|(_, wanted)| **wanted);
        let runtime: Map<_, _> =
            wanted.filter_map(|(name, _)| Some((name.clone(), attachment.capabilities.get(name)?.clone()))).collect();
        if !runtime.is_empty() {
            request.config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        self.run(plugin, &request)
    }

    fn request(
        &self,
        list: &NetworkList,
        plugin: &PluginConf,
        attachment: Option<&Attachment>,
        command: Command,
        prev_result: Option<CniResult>,
    ) -> Request {
        let mut config = plugin.raw.clone();
        config.insert("cniVersion".to_owned(), list.cni_version.to_string().into());
        config.insert("name".to_owned(), list.name.clone().into());
        Request {
            command,
            container_id: attachment.map(|attachment| attachment.container_id.clone()).unwrap_or_default(),
            netns: attachment.and_then(|attachment| attachment.netns.clone()),
            ifname: attachment.map(|attachment| attachment.ifname.clone()).unwrap_or_default(),
            args: attachment.map(Attachment::args_text).unwrap_or_default(),
            cni_version: list.cni_version,
            network: list.name.clone(),
            config,
            prev_result,
            plugins: self.plugins.clone(),
        }
    }

    fn run(&self, plugin: &PluginConf, request: &Request) -> Result<Option<CniResult>, RuntimeError> {
        self.plugins.call(&plugin.kind, request).map_err(|source| RuntimeError::Plugin {
            network: request.network.clone(),
            plugin: plugin.kind.clone(),
            command: request.command.as_str(),
            source,
        })
    }
}

impl Attachment {
    pub(crate) fn netns_text(&self) -> String {
        self.netns.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn args_text(&self) -> String {
        self.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
    }

    /// Refuses what can't be named in the protocol or in a file name.
    fn check(&self) -> Result<(), RuntimeError> {
        let refused =
            |field, value: &str, reason| Err(RuntimeError::Attachment { field, value: value.to_owned(), reason });
        if !is_name(&self.container_id) {
            return refused("container id", &self.container_id, "it must match [a-zA-Z0-9][a-zA-Z0-9_.-]*");
        }
        if !is_interface_name(&self.ifname) {
            return refused("interface name", &self.ifname, "it must have 1 to 15 bytes and no \"/\", \":\" or space");
        }
        match self.args.iter().find(|(key, value)| format!("{key}{value}").contains([';', '\0']) || key.contains('=')) {
            Some((key, _)) => refused("argument", key, "it can't be written in CNI_ARGS"),
            None => Ok(()),
        }
    }
}

/// What the kernel takes as the name of a link.
pub(crate) fn is_interface_name(name: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && !name.contains(forbidden)
}

fn still_there(netns: Option<PathBuf>) -> Option<PathBuf> {
    netns.filter(|path| path.exists())
}

#[cfg(test)]
mod tests;
