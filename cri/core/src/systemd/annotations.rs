//! Annotations `org.systemd.property.NAME` of a bundle: properties for its unit, as runc takes them (docs/systemd.md).
//!
//! Their values are text in GVariant's form. Of its types those are known that properties of scopes have; systemd itself
//! refuses a type that is not the property's. What the runtime sets by itself can't be set: a bundle says that in its own
//! fields. Annotations of pods never come here: the CRI's side of this crate leaves all but its own out of configurations.

use std::collections::BTreeMap;

use super::{Property, Value};
use crate::error::ConfigError;

/// What the annotations' names begin with.
pub const PREFIX: &str = "org.systemd.property.";

const MOST: usize = 64;
/// The longest value, in bytes.
const LONGEST: usize = 4096;

/// Whose they are and what they limit is said by the configuration's own fields.
const OWN: &[&str] = &[
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "CPUAccounting",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUWeight",
    "DefaultDependencies",
    "Delegate",
    "DelegateControllers",
    "IOAccounting",
    "MemoryAccounting",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "PIDs",
    "Slice",
    "TasksAccounting",
    "TasksMax",
];

/// The properties that some annotations ask for, by their names' order.
///
/// # Errors
/// The first that is no property's name or no value, or that the runtime sets by itself.
pub fn properties<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>, ConfigError> {
    let annotations: BTreeMap<&str, &str> =
        annotations.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str()))).collect();
    if annotations.len() > MOST {
        return Err(ConfigError::new("annotations", format!("more than {MOST} begin with {PREFIX}"), "leave some out"));
    }
    annotations.into_iter().map(|(name, value)| property(name, value)).collect()
}

fn property(name: &str, text: &str) -> Result<Property, ConfigError> {
    let shown: String = name.chars().take(64).collect();
    let refuse =
        |reason: &str, remedy: &str| ConfigError::new(format!("annotations[\"{PREFIX}{shown}\"]"), reason, remedy);
    if !(3..=64).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(refuse("the rest of the name is no property's", "use 3 to 64 letters"));
    }
    let mut value = (text.len() <= LONGEST)
        .then(|| parse(text.trim()))
        .flatten()
        .ok_or_else(|| refuse("the value is none of the known types", "write true, 7, uint64 7, 'text' or ['text']"))?;
    let mut name = name.to_owned();
    // The documents' names of durations; D-Bus has microseconds.
    if let Some(stem) = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())) {
        let micro = seconds(&value).and_then(|seconds| seconds.checked_mul(1_000_000));
        value = micro.map(Value::U64).ok_or_else(|| refuse("the value is no number of seconds", "write uint64 7"))?;
        name = format!("{stem}USec");
    }
    if OWN.contains(&name.as_str()) {
        return Err(refuse("the runtime sets this by itself", "use the fields of linux"));
    }
    Ok(Property { name, value })
}

fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::I32(number) => u64::try_from(*number).ok(),
        Value::I64(number) => u64::try_from(*number).ok(),
        Value::U32(number) => Some(u64::from(*number)),
        Value::U64(number) => Some(*number),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?.trim();
        // Without an element its type is not known.
        return inner.split(',').map(|one| quoted(one.trim())).collect::<Option<_>>().map(Value::Texts);
    }
    if text.starts_with(['\'', '"']) {
        return quoted(text).map(Value::Text);
    }
    match text.split_once(' ').map(|(kind, number)| (kind, number.trim_start())) {
        None => text.parse().ok().map(Value::I32),
        Some(("int32", number)) => number.parse().ok().map(Value::I32),
        Some(("uint32", number)) => number.parse().ok().map(Value::U32),
        Some(("int64", number)) => number.parse().ok().map(Value::I64),
        Some(("uint64", number)) => number.parse().ok().map(Value::U64),
        Some(_) => None,
    }
}

/// Without escapes and commas, which no property of a scope needs.
fn quoted(text: &str) -> Option<String> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
    let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
    let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ',') && c != mark;
    inner.chars().all(plain).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Property, ConfigError> {
        let entry = (format!("{PREFIX}{name}"), value.to_owned());
        properties([(&entry.0, &entry.1)]).map(|mut all| all.pop().expect("one"))
    }

    #[test]
    fn values_have_types() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("-7", Value::I32(-7)),
            ("uint32 7", Value::U32(7)),
            ("int64 -7", Value::I64(-7)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("'inactive-or-failed'", Value::Text("inactive-or-failed".to_owned())),
            ("[\"a.service\", 'b.service']", Value::Texts(vec!["a.service".to_owned(), "b.service".to_owned()])),
        ] {
            assert_eq!(one("CollectMode", text).expect(text), Property { name: "CollectMode".to_owned(), value });
        }
        let property = one("TimeoutStopSec", "uint64 3").expect("seconds");
        assert_eq!(property, Property::new("TimeoutStopUSec", 3_000_000_u64));
        assert_eq!(one("TimeoutStopUSec", "uint64 3").expect("as it is").value, Value::U64(3));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value) in [
            ("PIDs", "[1]"),
            ("Slice", "'x.slice'"),
            ("Delegate", "false"),
            ("MemoryMax", "uint64 1"),
            ("CPUQuotaPerSecSec", "'x'"),
            ("Ab", "true"),
            ("Exec-Start", "'x'"),
            ("TimeoutStopSec", "'3'"),
            ("TimeoutStopSec", "-3"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
            ("CollectMode", "'a"),
            ("CollectMode", "'a\\'"),
            ("CollectMode", "'a\nb'"),
            ("CollectMode", "[]"),
            ("CollectMode", "uint64 -1"),
            ("CollectMode", "(true, 'x')"),
            ("CollectMode", ""),
        ] {
            let error = one(name, value).expect_err(value);
            assert!(error.field.contains(name), "{error}");
        }
        one("CollectMode", &format!("'{}'", "a".repeat(LONGEST))).expect_err("too long");
        let others = ("org.systemd".to_owned(), "x".to_owned());
        assert_eq!(properties([(&others.0, &others.1)]), Ok(Vec::new()));
    }
}
