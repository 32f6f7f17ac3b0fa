//! Image references as the store names images: `registry/repository:tag` or `registry/repository@digest`.

use oci_spec::distribution::Reference as Parsed;

use crate::digest::Digest;
use crate::error::PullError;

/// What is asked of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever the tag points to now.
    Tag(String),
    /// Exactly this manifest.
    Digest(Digest),
}

/// A normalised image reference. A tag beside a digest is dropped, as Docker and containerd do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry as the user names it, with `docker.io` filled in.
    pub registry: String,
    /// Repository, with `library/` filled in.
    pub repository: String,
    /// Tag (`latest` filled in) or digest.
    pub wanted: Wanted,
}

impl Reference {
    /// Parses and normalises `name`.
    ///
    /// # Errors
    /// [`PullError::Reference`] when it is no image reference, or its digest has an algorithm that we don't verify.
    pub fn parse(name: &str) -> Result<Self, PullError> {
        let refuse = |reason: String| PullError::Reference { name: name.chars().take(300).collect(), reason };
        let parsed: Parsed = name.parse().map_err(|error| refuse(format!("{error}")))?;
        let wanted = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Wanted::Digest(digest.parse().map_err(|error| refuse(format!("{error}")))?),
            (None, tag) => Wanted::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry: parsed.registry().to_owned(), repository: parsed.repository().to_owned(), wanted })
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag or digest as it stands in a manifest's address.
    pub(crate) fn selector(&self) -> &str {
        match &self.wanted {
            Wanted::Tag(tag) => tag,
            Wanted::Digest(digest) => digest.as_str(),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wanted {
            Wanted::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Wanted::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_as_docker_does() {
        let hex = "0a".repeat(32);
        for (name, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("team/app:1", "docker.io/team/app:1".to_owned()),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            (&format!("k8s.io/a:1@sha256:{hex}"), format!("k8s.io/a@sha256:{hex}")),
        ] {
            assert_eq!(Reference::parse(name).expect(name).to_string(), full);
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for name in ["", "Upper", "a:b:c", "a@sha256:12", "a b", "../etc"] {
            assert!(matches!(Reference::parse(name), Err(PullError::Reference { .. })), "{name}");
        }
    }
}
