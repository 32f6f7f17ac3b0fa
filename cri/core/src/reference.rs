//! Image references, as people write them and as they are kept.

use oci_spec::distribution::Reference;

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {reason}")]
pub struct InvalidReference {
    pub text: String,
    pub reason: String,
}

/// What `ImageSpec.image` means: people and the kubelet put names, digests of configurations and bare ids there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// `sha256:` and 64 hex digits, or the digits alone: an image's id.
    Id(String),
    Reference(Reference),
}

/// A name of 4 times the longest repository, tag and digest is not a name.
const MAX_LENGTH: usize = 2048;

/// The full form of a reference: `nginx` is `docker.io/library/nginx:latest`. Of a tag and a digest, the digest counts.
pub fn normalize(text: &str) -> Result<Reference, InvalidReference> {
    let invalid = |reason: String| InvalidReference { text: text.chars().take(256).collect(), reason };
    if text.len() > MAX_LENGTH {
        return Err(invalid(format!("it is longer than {MAX_LENGTH} bytes")));
    }
    if is_hex_id(text) {
        return Err(invalid("64 hex digits are an image id, not a name".to_owned()));
    }
    let reference: Reference = text.parse().map_err(|error: oci_spec::distribution::ParseError| {
        let upper = text.split(['@', ':']).next().is_some_and(|name| name.chars().any(char::is_uppercase));
        if upper { invalid("repository names are lower-case".to_owned()) } else { invalid(error.to_string()) }
    })?;
    match (reference.tag(), reference.digest()) {
        (_, Some(digest)) if digest.bytes().any(|b| b.is_ascii_uppercase()) => {
            Err(invalid("digests are lower-case".to_owned()))
        }
        (Some(_), Some(digest)) => Ok(Reference::with_digest(
            reference.registry().to_owned(),
            reference.repository().to_owned(),
            digest.to_owned(),
        )),
        _ => Ok(reference),
    }
}

/// What a name in an `ImageSpec` means.
pub fn image_name(text: &str) -> Result<ImageName, InvalidReference> {
    if is_hex_id(text) {
        return Ok(ImageName::Id(format!("sha256:{text}")));
    }
    if let Some(digits) = text.strip_prefix("sha256:")
        && is_hex_id(digits)
    {
        return Ok(ImageName::Id(text.to_owned()));
    }
    normalize(text).map(ImageName::Reference)
}

fn is_hex_id(text: &str) -> bool {
    crate::ids::is_id(text)
}

#[cfg(test)]
mod tests;
