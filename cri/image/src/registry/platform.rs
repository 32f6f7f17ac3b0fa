//! Which entry of an index runs here.

use super::manifest::Descriptor;

/// This machine's architecture as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The best entry for this machine; the error lists what is offered.
pub(crate) fn choose(entries: &[Descriptor]) -> Result<&Descriptor, String> {
    choose_for(entries, architecture())
}

fn choose_for<'a>(entries: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, String> {
    let fitting = entries.iter().filter_map(|entry| Some((rank(entry, architecture)?, entry)));
    // The first of the best, as an index lists its own preference first.
    if let Some((_, entry)) = fitting.min_by_key(|(rank, _)| *rank) {
        return Ok(entry);
    }
    let offered: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(|platform| {
            let variant = platform.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("{}/{}{variant}", platform.os, platform.architecture)
        })
        .take(20)
        .collect();
    Err(format!("no image for linux/{architecture}; offered: {}", offered.join(", ")))
}

/// Lower is better, none does not run here. An entry without a platform may be anything: it comes last.
fn rank(entry: &Descriptor, architecture: &str) -> Option<u8> {
    let attestation =
        |notes: &std::collections::BTreeMap<String, String>| notes.contains_key("vnd.docker.reference.type");
    if entry.annotations.as_ref().is_some_and(attestation) {
        return None;
    }
    let Some(platform) = &entry.platform else { return Some(9) };
    if platform.os != "linux" || platform.architecture != architecture {
        return None;
    }
    match (architecture, platform.variant.as_deref().unwrap_or_default()) {
        (_, "") | ("amd64", "v1") | ("arm64", "v8") => Some(0),
        // A variant that asks for a newer processor; only when there is no plain one.
        ("amd64", "v2") => Some(1),
        ("amd64", "v3") => Some(2),
        _ => Some(3),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Platform;
    use super::*;

    fn entry(os: &str, architecture: &str, variant: &str) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: crate::Digest::sha256(format!("{os}{architecture}{variant}").as_bytes()),
            size: 1,
            platform: Some(Platform {
                architecture: architecture.into(),
                os: os.into(),
                variant: (!variant.is_empty()).then(|| variant.into()),
            }),
            annotations: None,
        }
    }

    #[test]
    fn the_plain_variant_is_preferred_and_foreign_ones_are_skipped() {
        let index = [
            entry("windows", "amd64", ""),
            entry("unknown", "unknown", ""),
            entry("linux", "arm64", "v8"),
            entry("linux", "amd64", "v3"),
            entry("linux", "amd64", ""),
        ];
        assert_eq!(choose_for(&index, "amd64"), Ok(&index[4]));
        assert_eq!(choose_for(&index[..4], "amd64"), Ok(&index[3]));
        assert_eq!(choose_for(&index, "arm64"), Ok(&index[2]));
        let error = choose_for(&index, "riscv64").expect_err("none");
        assert!(error.contains("linux/riscv64") && error.contains("linux/arm64/v8") && !error.contains("unknown"));
    }
}
