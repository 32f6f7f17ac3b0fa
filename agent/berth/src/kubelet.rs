//! The kubelet's command line, where `berth` stands in its place: called as `kubelet`, or as `berth agent` with the flags
//! that kubeadm and kind write into KUBELET_KUBEADM_ARGS and KUBELET_EXTRA_ARGS.
//!
//! Flags are read as the kubelet reads them (github.com/spf13/pflag): `--name=value` or `--name value`, switches with or
//! without a value, `_` as good as `-`, the last one wins. Those that Berth has options for become these; those that stand
//! for a field of KubeletConfiguration become that field; a few have no meaning here and are named; the others are errors
//! in pflag's words.

mod table;

use std::collections::BTreeMap;

use berth_manifest::config::Override;
use serde_json::{Value, json};

/// What `kubelet --version` says, and `status.nodeInfo.kubeletVersion`: the Kubernetes version whose behaviour is followed,
/// and Berth's own number behind the `+`, which version comparisons leave aside.
pub(crate) const VERSION: &str = concat!("v1.37.2+berth.", env!("CARGO_PKG_VERSION"));

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    /// A switch: its value may be left out.
    Bool,
    /// `a,b`
    List,
    /// `k=v,k=v`
    Pairs,
    /// `k=true,k=false`
    Switches,
    /// `k<v,k<v`
    Limits,
    /// `k=v:Effect,k:Effect`
    Taints,
    /// Anything: it has no effect.
    Unused,
    /// A switch without effect.
    UnusedSwitch,
}

/// An option of Berth's own, as clap knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) takes_value: bool,
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Version,
    Help,
    Run(Line),
}

/// A command line in Berth's words.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Line {
    /// For clap.
    pub(crate) options: Vec<String>,
    /// For the configuration.
    pub(crate) fields: Vec<Override>,
    /// Flags without effect.
    pub(crate) unused: Vec<String>,
}

/// A flag that can't be meant, in pflag's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("failed to parse kubelet flag: unknown flag: --{0}")]
    Unknown(String),
    #[error("failed to parse kubelet flag: unknown shorthand flag: {0:?} in {1}")]
    Shorthand(char, String),
    #[error("failed to parse kubelet flag: bad flag syntax: {0}")]
    Syntax(String),
    #[error("failed to parse kubelet flag: flag needs an argument: --{0}")]
    Missing(String),
    #[error("failed to parse kubelet flag: invalid argument {value:?} for {flag:?} flag: {reason}")]
    Invalid { flag: String, value: String, reason: String },
    #[error("unknown command {0}")]
    Command(String),
}

/// Reads the arguments after `kubelet` (or `berth agent`).
///
/// `own`: Berth's options. `is_kubelet`: whether unknown flags are errors here; else they are left to clap, which knows
/// how to help.
pub(crate) fn read(
    arguments: impl IntoIterator<Item = String>,
    own: &[Own],
    is_kubelet: bool,
) -> Result<Asked, FlagError> {
    let mut line = Line::default();
    let mut options: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, value) = match split(&argument)? {
            Split::Flag(name, value) => (name, value),
            Split::Verbosity(value) => ("v".to_owned(), value),
            Split::Help => return Ok(Asked::Help),
            Split::Shorthand(letter) if is_kubelet => return Err(FlagError::Shorthand(letter, argument)),
            Split::Word if is_kubelet => return Err(FlagError::Command(argument)),
            Split::Shorthand(_) | Split::Word => {
                line.options.push(argument);
                continue;
            }
        };
        match name.as_str() {
            "help" => return Ok(Asked::Help),
            "version" if is_kubelet && !matches!(value.as_deref(), Some("false")) => return Ok(Asked::Version),
            _ => {}
        }
        let kind = table::FLAGS.iter().find(|(flag, ..)| *flag == name).map(|(_, kind, field)| (*kind, *field));
        let ours = own.iter().find(|own| own.name == name);
        let is_switch = match (ours, kind) {
            (Some(own), _) => !own.takes_value,
            (None, Some((kind, _))) => matches!(kind, Kind::Bool | Kind::UnusedSwitch),
            (None, None) if is_kubelet && name != "logging-format" => return Err(FlagError::Unknown(name)),
            (None, None) if name != "logging-format" => {
                line.options.push(argument);
                continue;
            }
            (None, None) => false,
        };
        let value = match value {
            None if !is_switch => Some(arguments.next().ok_or_else(|| FlagError::Missing(name.clone()))?),
            value => value,
        };
        if ours.is_some() {
            add(&mut options, name, value);
        } else if let Some((kind, field)) = kind {
            let value = value.unwrap_or_else(|| "true".to_owned());
            match typed(kind, &value) {
                Ok(Some(value)) => {
                    line.fields.push(Override { flag: format!("--{name}"), field: field.to_owned(), value })
                }
                Ok(None) => line.unused.push(format!("--{name}")),
                Err(reason) => return Err(FlagError::Invalid { flag: format!("--{name}"), value, reason }),
            }
        } else if value.as_deref() == Some("json") {
            add(&mut options, "log-format".to_owned(), value);
        }
    }
    for (name, value) in options {
        match value {
            // The kubelet's way to say that a flag is not given.
            Some(value) if value.is_empty() => {}
            Some(value) => line.options.push(format!("--{name}={value}")),
            None => line.options.push(format!("--{name}")),
        }
    }
    Ok(Asked::Run(line))
}

/// Of several the last one counts; labels add up.
fn add(options: &mut BTreeMap<String, Option<String>>, name: String, value: Option<String>) {
    let before = options.remove(&name).flatten().filter(|before| name == "node-labels" && !before.is_empty());
    let value = match (before, value) {
        (Some(before), Some(value)) if !value.is_empty() => Some(format!("{before},{value}")),
        (Some(before), _) => Some(before),
        (None, value) => value,
    };
    options.insert(name, value);
}

enum Split {
    Flag(String, Option<String>),
    Verbosity(Option<String>),
    Help,
    Shorthand(char),
    Word,
}

fn split(argument: &str) -> Result<Split, FlagError> {
    if let Some(flag) = argument.strip_prefix("--") {
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(FlagError::Syntax(argument.to_owned()));
        }
        return Ok(Split::Flag(name.replace('_', "-"), value));
    }
    let Some(short) = argument.strip_prefix('-') else { return Ok(Split::Word) };
    let mut letters = short.chars();
    Ok(match letters.next() {
        None => Split::Word,
        Some('h') => Split::Help,
        Some('v') => {
            let rest = letters.as_str();
            let value = rest.strip_prefix('=').unwrap_or(rest);
            Split::Verbosity((!value.is_empty()).then(|| value.to_owned()))
        }
        Some(letter) => Split::Shorthand(letter),
    })
}

/// The value as JSON; `None` when it has no effect.
fn typed(kind: Kind, text: &str) -> Result<Option<Value>, String> {
    let list = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let map = |separator: char, kind: &str, value: &dyn Fn(&str) -> Result<Value, String>| -> Result<Value, String> {
        let mut map = serde_json::Map::new();
        for item in list() {
            let (key, rest) =
                item.split_once(separator).ok_or_else(|| format!("malformed pair, expect string{separator}{kind}"))?;
            map.insert(key.trim().to_owned(), value(rest.trim())?);
        }
        Ok(Value::Object(map))
    };
    Ok(Some(match kind {
        Kind::Text => json!(text),
        Kind::Number => {
            json!(text.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?)
        }
        Kind::Bool => json!(switch(text)?),
        Kind::List => list().collect(),
        Kind::Pairs => map('=', "string", &|value| Ok(json!(value)))?,
        Kind::Limits => map('<', "string", &|value| Ok(json!(value)))?,
        Kind::Switches => map('=', "bool", &|value| Ok(json!(switch(value)?)))?,
        Kind::Taints => list().map(taint).collect::<Result<_, _>>()?,
        Kind::Unused => return Ok(None),
        Kind::UnusedSwitch => {
            switch(text)?;
            return Ok(None);
        }
    }))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// `kubernetes@v1.37.2:pkg/util/taints/taints.go#parseTaint`.
fn taint(text: &str) -> Result<Value, String> {
    let wrong = || format!("invalid taint spec: {text}, format is key=value:Effect or key:Effect");
    let (key, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong());
    }
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = json!(value);
    }
    Ok(taint)
}

#[cfg(test)]
mod tests;
